"""Scale of recorded actions: what passes, what is warned of, and what is refused, wherever."""

from pathlib import Path

import numpy as np
import pytest

from common.foundation.errors import UserError
from datasets import inspect
from datasets.actions import check_actions, find_misfit, recorded_actions
from datasets.collection import collect
from datasets.convert import export_npz, import_npz
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset
from envs.base import ActionSpec
from tests.helpers.corridor_world import corridor_world
from tests.helpers.datasets import record
from tests.helpers.point_world import COLLECT, PointCollector, PointWorld, point_world

PAIR = ActionSpec(2)


def rows(low: float, high: float, size: int = 2) -> np.ndarray:
    """100 actions that span [low, high] in their last number and [-1, 1] in the others."""
    actions = np.tile(np.linspace(-1, 1, 100), (size, 1)).T
    actions[:, -1] = np.linspace(low, high, 100)
    return actions.astype(np.float32)


def save(path: Path, actions: np.ndarray) -> Path:
    numbers = np.zeros((len(actions), 2), np.float32)
    ends = np.arange(len(actions)) % 10 == 9
    np.savez(path, actions=actions, terminals=ends, qpos=numbers, state_observations=numbers)
    return path


@pytest.mark.parametrize("limit", [1, 1 + 1e-6, 0.2])
def test_numbers_in_range_pass(limit: float) -> None:
    assert find_misfit([rows(-limit, limit)], PAIR) is None


def test_robots_that_do_not_move_pass() -> None:
    assert find_misfit([np.zeros((5, 2))], PAIR) is None


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (
            -1.5,
            1.5,
            r"17 % of column actions is beyond \[-1, 1\]: number 1 .* \[-1\.5, 1\.5\]; clip",
        ),
        (-1.01, 1, r"0\.5 % of column actions is beyond .* \[-1\.01, 1\]; clip_actions=true clips"),
    ],
)
def test_a_slight_excess_is_warned_of(low: float, high: float, told: str, warned) -> None:
    actions = rows(low, high)
    check_actions([actions[:30], actions[30:]], PAIR, "dataset x", clip=False)
    (message,) = warned
    assert message.startswith("warning: dataset x: ")
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(message)
    assert "store 2 (a - low) / (high - low) - 1 instead" in message and "\n" not in message
    warned.clear()
    check_actions([actions], PAIR, "dataset x", clip=True)
    assert warned == []


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0, 100), (0, 255), (-1.6, 1), (-180, 180), (1, 2)])
def test_another_scale_is_refused(low: float, high: float, clip: bool) -> None:
    told = rf"x: .* another scale than \[-1, 1\]: number 2 .* spans \[{low}, {high}\]; store 2 "
    with pytest.raises(UserError, match=told) as error:
        check_actions([rows(low, high, size=3)], ActionSpec(3), "dataset x", clip)
    assert "\n" not in str(error.value)


def test_a_scale_of_metres_is_warned_of(warned) -> None:
    check_actions([0.05 * rows(-1, 1)], PAIR, "dataset x", clip=False)
    assert "uses little of [-1, 1]: number 0 of a row spans [-0.05, 0.05]" in "\n".join(warned)


def test_numbers_that_are_not_finite_are_left_to_others() -> None:
    actions = rows(-1, 1)
    actions[3, 0], actions[4, 1] = np.nan, np.inf
    assert find_misfit([actions], PAIR) is None


def test_discrete_actions_are_one_hot() -> None:
    spec = ActionSpec(3, discrete=True)
    choices = np.eye(3)[[0, 2, 1, 1]]
    assert find_misfit([choices], spec) is None
    for wrong in (choices * 0.5, choices[:, ::-1] + choices, np.zeros((2, 3)), choices - 1):
        misfit = find_misfit([choices, wrong], spec)
        assert not misfit.slight and "other rows than one-hot ones of 3 choices" in misfit.text


def test_what_worlds_collect_passes(tmp_path: Path) -> None:
    for world in (point_world(), corridor_world()):
        dataset = record(tmp_path, world.name, world)
        assert find_misfit(recorded_actions(dataset), world.actions) is None


class WildCollector(PointCollector):
    def act(self, info):
        return 100 * super().act(info)


class WildWorld(PointWorld):
    in_process = True

    def collector(self, env, settings):
        return WildCollector()


def test_a_collector_of_another_scale_is_refused(tmp_path: Path) -> None:
    world = point_world(kind=WildWorld)
    arguments = {"seed": 0, "settings": COLLECT, "pixels": False, "workers": 1, "progress": False}
    with pytest.raises(UserError, match=r"another scale than \[-1, 1\]: number . of a row spans"):
        collect(world, name="wild", data_dir=tmp_path, episodes=1, **arguments)
    assert not list((tmp_path / "wild").glob("*/*.h5"))


def test_imports_are_checked_and_clipped(tmp_path: Path, warned) -> None:
    world = point_world()
    for name, actions in (("slight", rows(-1.2, 1.2)), ("percent", rows(0, 100))):
        save(tmp_path / f"{name}.npz", actions)
    with pytest.raises(UserError, match=r"percent\.npz: .*another scale"):
        import_npz(tmp_path / "percent.npz", "percent", tmp_path, world, "again", True)
    assert not (tmp_path / "percent").exists()
    file = tmp_path / "slight.npz"
    import_npz(file, "kept", tmp_path, world, "again")
    assert f"{file}: 9 % of column actions" in "\n".join(warned)
    import_npz(file, "clipped", tmp_path, world, "again", True)
    for name, limit in (("kept", 1.2), ("clipped", 1)):
        stored = Dataset.open(tmp_path, name).load(["actions"])[0]["actions"]
        np.testing.assert_array_equal(stored, rows(-1.2, 1.2).clip(-limit, limit))
    with pytest.raises(UserError, match=r"kept was made with source\.train\.clip_actions=None"):
        import_npz(file, "kept", tmp_path, world, "again", True)
    export_npz(Dataset.open(tmp_path, "clipped"), tmp_path / "out.npz")
    source = NpzDataset(tmp_path / "out.npz", world)
    assert find_misfit(recorded_actions(source), world.actions) is None


def test_inspect_tells_the_scale(tmp_path: Path, warned) -> None:
    world = point_world()
    slight = NpzDataset(save(tmp_path / "slight.npz", rows(-1.2, 1.2)), world)
    percent = NpzDataset(save(tmp_path / "percent.npz", rows(0, 100)), world)
    (line,) = inspect.problems(percent, world)
    assert line.startswith(f"{percent}: column actions is on another scale")
    assert list(inspect.problems(slight, world)) == []
    assert "9 % of column actions is beyond [-1, 1]" in "\n".join(warned)
    for dataset, told in ((slight, "  9 % of column actions"), (percent, "  column actions is on")):
        assert sum(line.startswith(told) for line in inspect.report(dataset, world, "train")) == 1
