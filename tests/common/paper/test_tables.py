"""Tables from run folders: the right runs in the right cells, and the same again from the CSVs."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.foundation.errors import UserError
from common.paper import records, tables
from common.paper.comparison import ABLATIONS, TABLES, cells
from common.paper.experiments import names
from common.paper.records import read_published
from common.runs.folders import train_name
from common.settings.config import ROOT, compose
from tests.helpers.run_folders import add_evaluation, add_run

SGIQL, IQL = "ppp-state/ec-sgiql", "ppp-state/ec-iql"
RESULTS = sorted(path.parent for path in (ROOT / "results").glob("*/runs.csv"))


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Three runs of one method and two of another, with some of every kind of evaluation."""
    root = tmp_path_factory.mktemp("output")
    for seed, successes in enumerate(([1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1])):
        add_run(root, SGIQL, seed, (0.1 * seed, 0.5))
        add_evaluation(root, SGIQL, seed, successes)
        add_evaluation(root, SGIQL, seed, [1, 1, 1, 1], checkpoint="best")
    for seed in (0, 1):
        add_run(root, IQL, seed)
        add_evaluation(root, IQL, seed, [1, 0, 0, 0])
        add_evaluation(root, f"{SGIQL}/max-value", seed, [1, 1, 0, 0])
        add_evaluation(root, f"{SGIQL}/changed-entities", seed, [1, 0, 0], changed=[1, 1, 2])
        cubes = ["env_kwargs.manipobj.num_cubes=1"]
        add_evaluation(root, f"{SGIQL}/1-cube", seed, [1, 1], overrides=cubes)
    add_evaluation(root, f"{IQL}/random-policy", 0, [0, 0], updates=0)
    add_evaluation(root, "subgoals", 0, [1], name="sgiql_manipobj-v0_0_subgoals")
    return root


@pytest.fixture(scope="module")
def made(output, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "mine"
    tables.main([str(output), str(folder)])
    return folder


def figures(folder: Path, name: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of a table's CSV file by agent, variant and checkpoint."""
    table = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
    return {(r["agent"], r["variant"], r["checkpoint"]): r for r in table.to_dict("records")}


def test_every_evaluation_is_in_its_cell(made):
    assert list(figures(made, "main")) == [
        ("ec-sgiql", "", "last"),
        ("ec-iql", "", "last"),
        ("ec-iql", "random-policy", "last"),
        ("ec-sgiql", "", "best"),
    ]
    assert list(figures(made, "ablations")) == [
        ("ec-sgiql", "", "last"),
        ("ec-sgiql", "max-value", "last"),
        ("ec-sgiql", "", "best"),
    ]
    assert list(figures(made, "subgoals")) == [("ec-sgiql", "changed-entities", "last")]
    assert ("ec-sgiql", "1-cube", "last") in figures(made, "generalization")
    assert not any(agent == "ec-iql" for agent, _, _ in figures(made, "generalization"))


def test_figures_are_over_seeds(made):
    row = figures(made, "main")["ec-sgiql", "", "last"]
    assert (row["runs"], row["mean"], row["sd"]) == ("3", "0.75", "0.25")
    assert (row["published_mean"], row["published_sd"]) == ("0.825", "0.031")
    assert float(row["low"]) == 0.5 and float(row["high"]) == 1.0
    assert figures(made, "main")["ec-sgiql", "", "best"]["mean"] == "1.0"
    assert figures(made, "subgoals")["ec-sgiql", "changed-entities", "last"]["mean"] == "1.333333"


def test_the_text_has_figures_comparison_conditions_and_runs(made, output):
    text = (made / "main.md").read_text()
    line = "| PPP-Cube, state | EC-SGIQL | as trained | 3 | 20 | 75.0 ± 25.0 |"
    assert f"{line} 75.0 [50.0, 100.0] | 82.5 ± 3.1 |" in text
    assert "| EC-SGIQL over EC-IQL | PPP-Cube, state | 3 and 2 | 1.00 | [1.00, 1.00] |" in text
    assert "| PPP-Cube, state | random policy | - | 1 | 0 | 0.0 |" in text
    assert "| EC-SGIQL over random policy | PPP-Cube, state | 3 and 1 | 1.00 |" in text
    assert text.index("Checkpoint `last`") < text.index("Checkpoint `best`")
    config = compose(["env_kwargs.manipobj.num_cubes=2", "max_episode_steps=40", "seed=1"])
    digest = train_name(config).rpartition("_")[2]
    folders = "ppp-state_ec-sgiql_1 | ppp-state_ec-sgiql_last_1_20260101-000000"
    assert f"| ppp-state/ec-sgiql | last | 1 | 50.0 | {folders} | 0123456789 | {digest} |" in text
    assert "| 2 | ppp-cube-noisy-v0 | - | 20 | 4 | 40 | a processor | 0.50 |" in text
    assert "| 1.33 ± 0.00 |" in (made / "subgoals.md").read_text()
    lengths = [len(line.split("|")) for line in text.splitlines() if line.startswith("|")]
    assert set(lengths) <= {7, 8, 10, 11, 13}  # as many cells in a line as its heading has


def test_latex_has_results_and_no_bare_special_characters(made):
    text = (made / "main.tex").read_text()
    assert r"75.0 $\pm$ 25.0" in text and "config" not in text
    body = text.partition("\n")[2]
    assert "±" not in body and not [
        1 for a, b in itertools.pairwise(body) if b in "%_#" and a != "\\"
    ]


def test_there_are_pictures(made):
    for name in (*TABLES, "curves"):
        assert Image.open(made / f"{name}.png").size[0] > 300


def same_files(first: Path, second: Path) -> None:
    """Texts alike to the byte, pictures but for the rasteriser's last bits."""
    names = [
        {p.name for p in folder.iterdir() if p.name != "README.md"} for folder in (first, second)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith(".png"):
            pictures = [np.asarray(Image.open(f / name), np.float64) for f in (first, second)]
            assert pictures[0].shape == pictures[1].shape, name
            assert np.abs(pictures[0] - pictures[1]).mean() < 1, name
        else:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


def copy_records(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in records.FILES:
        shutil.copy(source / f"{name}.csv", target)
    return target


def test_the_same_tables_come_from_the_csv_files(made, tmp_path):
    again = copy_records(made, tmp_path / "again")
    tables.main([str(again)])
    same_files(made, again)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_results_match_their_csv_files(folder, tmp_path):
    again = copy_records(folder, tmp_path / "again")
    tables.main([str(again)])
    same_files(folder, again)


def test_a_changed_figure_would_be_noticed(made, tmp_path):
    again = copy_records(made, tmp_path / "again")
    data = records.load(again)
    data.runs.loc[0, "success"] = 0.26
    records.save(again, data)
    tables.main([str(again)])
    with pytest.raises(AssertionError):
        same_files(made, again)


def test_one_table_alone_and_evaluations_of_no_cell(output, tmp_path, capsys):
    tables.main([str(output), str(tmp_path), "--table", "subgoals"])
    assert "of no cell: sgiql_manipobj-v0_0_subgoals" in capsys.readouterr().out
    assert not (tmp_path / "main.md").exists() and (tmp_path / "subgoals.md").exists()


def test_the_newest_of_several_evaluations_counts(tmp_path):
    for name, successes in (("b", [1, 1]), ("a", [0, 0])):  # made in this order
        add_evaluation(tmp_path, SGIQL, 0, successes, name=name)
    data, _ = records.gather(tmp_path)
    (run,) = data.runs.itertuples()
    assert (run.evaluation, run.success) == ("a", 0.0)
    assert np.isnan(run.train_hours) and run.config == ""


@pytest.mark.parametrize("kept", [False, True], ids=["runs", "csv"])
def test_runs_of_several_machines_come_together_in_a_folder(tmp_path, kept):
    """A run made again takes the old one's place, curve and all; others stay."""
    first, second, folder = (tmp_path / name for name in ("first", "second", "results"))
    for machine, successes, seeds in ((first, [1, 0], (0, 1)), (second, [1, 1], (1, 2))):
        for seed in seeds:
            add_run(machine, SGIQL, seed, (0.1 * sum(successes), 0.5))
            add_evaluation(machine, SGIQL, seed, successes)
            more = f"{SGIQL}/changed-entities"
            add_evaluation(machine, more, seed, successes, changed=successes)
    tables.main([str(first), str(folder)])
    if kept:
        tables.main([str(second), str(tmp_path / "kept")])
        second = tmp_path / "kept"
    tables.main([str(second), str(folder), "--add"])
    data = records.load(folder)
    trained = data.runs[data.runs.variant == ""]
    assert dict(zip(trained.seed, trained.success, strict=True)) == {0: 0.5, 1: 1.0, 2: 1.0}
    assert data.curves.success.tolist() == [0.1, 0.5, 0.2, 0.5, 0.2, 0.5]
    counts = data.changes[["seed", "changed", "episodes"]].to_numpy().tolist()
    assert counts == [[0, 0, 1], [0, 1, 1], [1, 1, 2], [2, 1, 2]]
    assert (folder / "main.md").is_file()


def test_methods_are_compared_over_all_experiments(tmp_path):
    for experiment in ("ppp-state", "stack-state"):
        for agent, successes in (("ec-sgiql", [1, 1]), ("ec-iql", [1, 0])):
            for seed in (0, 1):
                add_evaluation(tmp_path, f"{experiment}/{agent}", seed, successes)
    add_evaluation(tmp_path, "ppp-state/hiql", 0, [0, 0])
    data, _ = records.gather(tmp_path)
    layout = TABLES["main"]
    parts = tables.sections(cells(data.runs, layout, {}), layout)
    overall, wins = (
        next(part for part in parts if part.title == title)
        for title in ("All together", "Probability of improvement")
    )
    assert [row[0] for row in overall.rows] == ["EC-SGIQL", "EC-IQL"]  # HIQL lacks one
    assert overall.rows[1][2] == "50.0 [50.0, 50.0]"
    assert [row[1] for row in wins.rows] == [
        "PPP-Cube, state",
        "Stack-Cube, state",
        "all of these",
        "PPP-Cube, state",
    ]
    assert wins.rows[2][2:4] == ["4 and 4", "1.00"]


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"no evaluations in .*; make some with commands/reproduce"):
        records.gather(tmp_path)
    (tmp_path / "runs.csv").write_text("experiment,what\na,b\n")
    with pytest.raises(UserError, match=r"cannot read .*runs\.csv .*-m common\.paper\.tables"):
        records.load(tmp_path)
    with pytest.raises(UserError, match="no runs for subgoals"):
        tables.write_tables(records.Records.of(), tmp_path, ["subgoals"])


def test_published_figures_are_those_of_cells_and_have_a_source():
    figures = read_published()
    assert {variant for _, _, variant, _ in figures} == {"", "changed-entities"}
    assert all(f.source for f in figures.values())
    assert figures["ppp-state", "ec-sgiql", "", "success"].mean == 0.825
    assert figures["ppp-state", "ec-sgiql", "changed-entities", "entities_changed"].mean == 1.36
    assert sum(metric == "success" for *_, metric in figures) == 20


def test_the_ablations_are_names_of_the_evaluation_script():
    for variant in (*ABLATIONS, "changed-entities"):
        assert f"ppp-state/ec-sgiql/{variant}" in names("eval")
