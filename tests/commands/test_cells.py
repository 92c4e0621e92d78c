"""The named commands of collect.sh and its kin: settings, and a small run of each kind."""

import csv
import functools
import os
import subprocess
from pathlib import Path

import pytest

from common.foundation.registry import AGENTS, IMAGE_KINDS
from common.paper import experiments
from common.paper.experiments import as_overrides
from common.settings.config import Config, compose, known_keys, learns_online
from common.settings.overrides import check_arguments
from envs.make import make_world
from envs.ogbench.tasks import TASKS
from tests.helpers.shells import this_python
from visual_encoders.download_chkpts import NAMES
from visual_encoders.images import COLUMN

REPOSITORY = Path(__file__).resolve().parents[2]
LINES = {
    (script, name): as_overrides(experiments.settings(script, name))
    for script in experiments.SECTIONS
    for name in experiments.names(script)
}
COLLECT, TRAIN, EVAL, ENCODERS = (
    {name: line for (script, name), line in LINES.items() if script == wanted}
    for wanted in ("collect", "train", "eval", "train_encoder")
)
PUBLISHED = ["ec-sgiql", "ec-sgiql-awr", "ec-iql", "hiql", "iql"]
EXPERIMENTS = ["ppp", "stack", "scene", "tetris"]
IMAGES = [name for name in TRAIN if "-image/" in name and "rgb" not in name]


@functools.cache
def settings(*overrides: str) -> Config:
    return compose(overrides)


def trained(name: str) -> str:
    """The line of train.sh that makes the agent of a line of eval.sh."""
    return "/".join(name.split("/")[:2])


def evaluation(name: str) -> Config:
    """The settings of an evaluation: its line's after those of its agent's training."""
    return settings(*TRAIN[trained(name)], *EVAL[name], "seed=7")


@pytest.mark.parametrize(("script", "name"), LINES)
def test_every_line_has_keys_and_values_that_exist(script, name):
    overrides = LINES[script, name]
    check_arguments(overrides, known_keys())
    settings(*overrides)


def test_every_training_has_its_dataset():
    collections = [settings(*line) for line in COLLECT.values()]
    collected = {config.dataset_name: config for config in collections}
    for name, line in TRAIN.items():
        training = settings(*line, "seed=7")
        assert training.run_name == f"{name.replace('/', '_')}_7"
        if training.ogbench:
            assert training.train_dataset_name == training.task
            continue
        if learns_online(training.agent):
            assert training.train_dataset_name is None
            continue
        collection = collected[training.train_dataset_name]
        header = make_world(collection).describe()
        assert make_world(training).compatible(header) is None
        assert collection.multiview == training.multiview
        assert (training.obs in IMAGE_KINDS) <= (collection.obs in IMAGE_KINDS)
        assert ("stack" in collection.world.mode) == ("stack" in training.world.mode)


@pytest.mark.parametrize("name", EVAL)
def test_every_evaluation_is_of_a_training_and_changes_only_what_its_name_says(name):
    agent, config = settings(*TRAIN[trained(name)], "seed=7"), evaluation(name)
    assert config.eval_checkpoint == f"output/train/{agent.run_name}"
    assert config.eval_variant_name == name.replace("/", "_")
    used = {f"{config.agent}.{key}" for key in vars(config.agent_settings)}
    foreign = [o for o in EVAL[name] if o.split(".")[0] in AGENTS]
    assert all(override.partition("=")[0] in used for override in foreign)
    if name in TRAIN:  # the paper counts another reward of Push-Tetris than it learns from
        worlds = [vars(part) | {"reward_mode": None} for part in (config.world, agent.world)]
        assert worlds[0] == worlds[1]
        assert config.agent_settings == agent.agent_settings


def test_names_of_the_paper_s_cells():
    experiments = [f"{e}-{s}" for s in ("state", "image") for e in EXPERIMENTS]
    for experiment in experiments:
        assert experiment in COLLECT
        assert {f"{experiment}/{agent}" for agent in PUBLISHED} <= TRAIN.keys() & EVAL.keys()
        if experiment.endswith("-state"):
            assert f"{experiment}/ec-diffuser" in TRAIN.keys() & EVAL.keys()
        variants = ["max-value", "random-sample", "no-subgoals"]
        assert {f"{experiment}/ec-sgiql/{variant}" for variant in variants} <= EVAL.keys()
    for experiment in ("ppp-image", "scene-image", "tetris-image"):
        found = {f"{experiment}/{agent}" for agent in ("iql-rgb", "ec-diffuser")}
        assert found <= TRAIN.keys() & EVAL.keys()
        assert {f"{experiment}/{kind}" for kind in ("dlp", "vqvae")} <= ENCODERS.keys()
    for experiment, theirs in {
        "ogbench-cube-double": ["ec-sgiql", "ec-iql", "hiql", "iql"],
        "ogbench-scene": ["ec-sgiql", "ec-iql", "hiql", "iql"],
        "ogbench-puzzle-3x3": ["hiql", "iql"],
    }.items():
        assert {f"{experiment}/{agent}" for agent in theirs} <= TRAIN.keys() & EVAL.keys()


@pytest.mark.parametrize("name", IMAGES)
def test_agents_on_images_have_the_published_encoder_of_their_world(name):
    experiment, agent = name.split("/")
    config = settings(*TRAIN[name])
    assert config.obs == ("vqvae" if agent in ("hiql", "iql") else "dlp")
    world = {"scene": "visual-scene", "tetris": "push-tetris"}.get(experiment.split("-")[0])
    encoder = Path(config.rep_model_checkpoint)
    assert encoder.name == f"{config.obs}-{world or 'mv-ppp-cube'}-v0"
    assert encoder.name in NAMES and encoder.parent == Path("visual_encoders/chkpts")
    assert config.eval_freq == 250_000
    assert config.multiview == (world is None)
    own = f"{'ppp-image' if experiment == 'stack-image' else experiment}/{config.obs}"
    trained = settings(*ENCODERS[own])
    columns = make_world(config).dataset_columns(pixels=True)
    assert columns[COLUMN][0][-3:] == (*[trained.encoder.image_size] * 2, 3)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_trained_as_the_reference_s_were(name):
    experiment, kind = name.split("/")
    config = settings(*ENCODERS[name], "seed=7")
    assert config.run_name == f"{experiment}_{kind}_7" and config.encoder.kind == kind
    (collection,) = (c for e, c in COLLECT.items() if e == experiment)
    assert config.train_dataset_name == settings(*collection).dataset_name
    assert config.train_dataset_div == 3 and config.encoder.batch_size == 32
    own = config.encoder_settings
    limits = {"dlp": (400, 250), "vqvae": (50, 150)}
    assert (config.encoder.frames_per_episode, own.epochs) == limits[kind]
    if kind == "dlp":
        assert own.n_kp_enc == (24 if experiment == "scene-image" else 20)


@pytest.mark.parametrize(
    ("experiment", "alphas", "steps", "episodes"),
    [
        ("ppp-image", (0.2, 0.2, 0.2, 0.3, 0.2), 2_501_000, (50, 100)),
        ("stack-image", (0.2, 0.2, 0.2, 0.3, 0.2), 3_001_000, (50, 200)),
        ("scene-image", (0.3, 0.3, 0.3, 0.4, 0.2), 1_501_000, (20, 50)),
        ("tetris-image", (0.1, 0.1, 0.1, 0.1, 0.1), 1_001_000, (100, 100)),
    ],
)
def test_agents_on_images_have_the_paper_s_numbers(experiment, alphas, steps, episodes):
    for agent, alpha in zip(PUBLISHED, alphas, strict=True):
        config = settings(*TRAIN[f"{experiment}/{agent}"])
        assert (config.agent_settings.alpha, config.steps) == (alpha, steps)
        found = config.num_eval_episodes, evaluation(f"{experiment}/{agent}").num_eval_episodes
        assert found == episodes


@pytest.mark.parametrize("name", [name for name in EVAL if name.startswith("ogbench-")])
def test_ogbench_is_evaluated_as_it_does(name):
    training, config = settings(*TRAIN[trained(name)], "seed=7"), evaluation(name)
    assert training.reward == "unsupervised" and training.steps == 1_000_000
    assert config.eval_tasks == (1, 2, 3, 4, 5) and config.num_eval_episodes == 50
    assert config.world.terminate_at_goal
    assert config.max_episode_steps == TASKS[config.task].table.steps


CUBES = [
    *((f"ppp-{source}", *row) for source in ("state", "image") for row in (
        ("/1-cube", 1, 500, 16),
        ("/2-cubes", 2, 800, 28),
        ("", 3, 1000, 32),
        ("/4-cubes", 4, 1200, 40),
        ("/5-cubes", 5, 1500, 52),
        ("/6-cubes", 6, 2000, 72),
    )),
    ("stack-state", "/2-cubes", 2, 500, 16),
    ("stack-state", "", 3, 1000, 32),
    ("stack-state", "/two-stacks", 4, 1200, 40),
]  # fmt: skip


@pytest.mark.parametrize(("experiment", "variant", "cubes", "steps", "subgoals"), CUBES)
def test_numbers_of_cubes(experiment, variant, cubes, steps, subgoals):
    method = evaluation(f"{experiment}/ec-sgiql{variant}")
    assert method.agent_settings.num_subgoals == subgoals
    assert method.agent_settings.n_diffusion_samples == 256
    assert method.agent_settings.value_competence_radius == -30
    for config in (method, evaluation(f"{experiment}/ec-iql{variant}")):
        assert config.world.num_cubes == cubes
        assert config.max_episode_steps == steps
        assert config.num_eval_episodes == (200 if "stack" in experiment else 100)
        more = {4: 24, 5: 28, 6: 30} if "image" in experiment else {}
        assert config.dlp_post_training_num_kp == more.get(cubes, -1)
    assert (method.world.mode == "task_stack") == (variant == "/two-stacks")


@pytest.mark.parametrize(
    ("pieces", "steps", "subgoals", "radius"),
    [
        (1, 500, 16, -10),
        (2, 800, 28, -15),
        (3, 1000, 32, -20),
        (4, 1200, 40, -20),
        (5, 1500, 52, -20),
        (6, 2000, 72, -20),
        (7, 2000, 72, -20),
    ],
)
@pytest.mark.parametrize("source", ["state", "image"])
def test_numbers_of_pieces(source, pieces, steps, subgoals, radius):
    variant = {1: "/1-piece", 3: ""}.get(pieces, f"/{pieces}-pieces")
    method = evaluation(f"tetris-{source}/ec-sgiql{variant}")
    assert method.agent_settings.num_subgoals == subgoals
    assert method.agent_settings.n_diffusion_samples == 64
    assert method.agent_settings.value_competence_radius == radius
    more = {4: 24, 5: 26, 6: 28, 7: 30} if source == "image" else {}
    for config in (method, evaluation(f"tetris-{source}/ec-iql{variant}")):
        assert config.dlp_post_training_num_kp == more.get(pieces, -1)
        assert (config.world.num_objects, config.world.reward_mode) == (pieces, "dense")
        assert (config.max_episode_steps, config.num_eval_episodes) == (steps, 100)


@pytest.mark.parametrize("source", ["state", "image"])
def test_the_scene_s_five_tasks(source):
    config = evaluation(f"scene-{source}/ec-sgiql")
    assert (config.eval_tasks, config.num_eval_episodes) == ((1, 2, 3, 4, 5), 50)
    s = config.agent_settings
    assert (s.subgoal_steps, s.num_subgoals, s.value_competence_radius) == (50, 16, -25)
    assert settings(*TRAIN[f"scene-{source}/ec-sgiql"]).num_eval_episodes == 20


# A small run of each kind of line, through the shell. Starting Python is what takes the time, so
# one experiment stands for both with cubes, one agent for each of the others, two evaluations for
# all from state, and Push-Tetris through a DLP for all through an encoder.

EXPERIMENT = "stack-state"
SMALL_EVALUATIONS = [f"{EXPERIMENT}/ec-sgiql/two-stacks", f"{EXPERIMENT}/hiql/changed-entities"]
OTHERS = ["scene-state/hiql", "tetris-state/ec-diffuser", "tetris-image/iql-rgb"]
THROUGH_AN_ENCODER = "tetris-image/ec-sgiql"
SMALL = {
    "collect.sh": ["num_collect_episodes=2", "max_episode_steps=60"],
    "train_encoder.sh": ["train_dataset_div=1", "encoder.holdout=0.5", "encoder.batch_size=4"],
    "train.sh": ["steps=2", "batch_size=4", "max_episode_steps=4", "num_eval_episodes=1"],
    "eval.sh": ["max_episode_steps=6", "num_eval_episodes=1"],
}
CPU = ["device=cpu", "threads=1", "num_workers=1", "save_video=false"]
SMALL_NETWORKS = [
    "arch_mlp.h_dim=8",
    "arch_mlp.conv_channels=[2,2]",
    "arch_eit.embed_dim=8",
    "arch_eit.h_dim=8",
    "arch_eit.n_head=2",
    "arch_eit.n_diffuser_layers=1",
    *(f"ecdiffuser.{key}=null" for key in ("embed_dim", "h_dim", "n_head", "n_layers")),
]
SMALL_IMAGES = "env_kwargs.pushtetris.render_size=64"
SMALL_ENCODER = [
    "encoder.image_size=64",
    "encoder.updates_per_epoch=1",
    "encoder.valid_images=4",
    "encoder.read_workers=0",
    "encoder.dlp.epochs=1",
    "encoder.dlp.patch_size=8",
    "encoder.dlp.n_kp_enc=4",
    "encoder.dlp.prior_channels=[4,8,12]",
    "encoder.dlp.enc_channels=[4,8,12]",
]


def _folder(name: str) -> str:
    """Of a training with the seed of the small runs."""
    return f"{name.replace('/', '_')}_3"


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs a line of a script at a small size, with its results in a folder of its own."""
    root = tmp_path_factory.mktemp("cells")
    environment = os.environ | {"VENV": str(this_python(root))}
    common = [*CPU, f"data_dir={root}/data", f"output_dir={root}/output", "seed=3"]

    def run(script: str, name: str, *overrides: str) -> Path:
        command = ["bash", f"commands/{script}", name, *SMALL[script], *overrides, *common]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return root

    return run


@pytest.fixture(scope="module")
def stacks(shell):
    """The same, with the data of the small experiment collected."""
    shell("collect.sh", EXPERIMENT)
    return shell


@pytest.mark.parametrize("name", [name for name in TRAIN if name.startswith(EXPERIMENT)])
def test_a_small_training_of_every_agent_and_some_evaluations(stacks, name):
    """Every training ends with an evaluation, too."""
    output = stacks("train.sh", name, *SMALL_NETWORKS) / "output"
    assert (output / "train" / _folder(name) / "last.safetensors").exists()
    for variant in SMALL_EVALUATIONS:
        if trained(variant) == name:
            stacks("eval.sh", variant)
            found = (output / "eval").glob(f"*_{variant.replace('/', '_')}_*/metrics.json")
            assert len(list(found)) == 1


@pytest.fixture(scope="module")
def pieces(shell):
    """The same, with images of Push-Tetris collected."""
    shell("collect.sh", "tetris-image", SMALL_IMAGES)
    return shell


@pytest.mark.parametrize("name", OTHERS)
def test_a_small_run_in_the_other_environments(pieces, name):
    experiment = name.split("/")[0]
    if experiment != "tetris-image":
        pieces("collect.sh", experiment, *([SMALL_IMAGES] if "tetris" in name else []))
    output = pieces("train.sh", name, SMALL_IMAGES, *SMALL_NETWORKS) / "output"
    (row,) = csv.DictReader((output / "train" / _folder(name) / "eval.csv").open())
    assert ("task5_success" in row) == name.startswith("scene")


def test_a_small_encoder_and_an_agent_that_sees_through_it(pieces):
    """Evaluated on sets of another size, too, which the encoder makes of more pieces."""
    name, encoder = THROUGH_AN_ENCODER, "tetris-image/dlp"
    output = pieces("train_encoder.sh", encoder, *SMALL_ENCODER) / "output"
    sees = f"rep_model_checkpoint={output}/encoders/{_folder(encoder)}"
    pieces("train.sh", name, sees, SMALL_IMAGES, *SMALL_NETWORKS)
    assert (output / "train" / _folder(name) / "eval.csv").exists()
    pieces("eval.sh", f"{name}/5-pieces", "sgiql.n_diffusion_samples=4")
    assert list((output / "eval").glob("*_tetris-image_ec-sgiql_5-pieces_*/metrics.json"))
