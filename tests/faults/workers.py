"""Workers that raise, die or hang: the episode is named and tried again, the others are kept."""

import re
from pathlib import Path

import torch

from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation.evaluate import evaluate
from common.foundation.errors import UserError
from common.foundation.pool import Patience
from datasets.store import Dataset
from tests.faults.report import Tally
from tests.helpers.datasets import assert_same_data, run
from tests.helpers.fake_agents import PointAgent
from tests.helpers.point_world import PointWorld, point_world

SILENCE = 90.0  # seconds after which a worker counts as hanging here: starts on a busy machine last
TROUBLES = ("raise", "die", "hang")
EPISODES = 4  # of an evaluation


def play(world: PointWorld, retries: int, silence: float = 600.0) -> list[dict]:
    """The rows of an evaluation with two workers."""
    observation = make_observation("ec_state_gen", world)
    width = observation.shape[-1:]
    parts = PointAgent(observation.shape), world, observation
    return evaluate(
        *parts,
        Normaliser(torch.zeros(width), torch.ones(width)),
        episodes=EPISODES,
        seed=7,
        num_envs=3,
        workers=2,
        patience=Patience(silence, retries),
    ).rows


def patience(trouble: str) -> Patience:
    """One more try; only those that hang are waited for."""
    return Patience(SILENCE if trouble == "hang" else 600.0, 1)


def evaluations(place: Path, troubles: tuple[str, ...]) -> list[Tally]:
    """Trouble in one episode of an evaluation: mended by another try, or reported."""
    mended = Tally("an environment of an evaluation raises, dies or hangs once")
    stopped = Tally("the same, again and again")
    undisturbed = play(point_world(12), 0)
    episode = undisturbed[1]
    for trouble in troubles:
        marks = place / f"marks-{trouble}"
        marks.mkdir(parents=True)
        at = {"trouble": trouble, "trouble_seed": episode["seed"], "marks": str(marks)}
        rows = play(point_world(12, **at), 1, patience(trouble).timeout)
        mended.expect(rows == undisturbed, f"{trouble}: other results")
        world = point_world(12, **at, times=99)
        try:
            play(world, 1, patience(trouble).timeout)
        except RuntimeError as error:
            named = f"episode 1 (seed {episode['seed']})" in str(error)
            stopped.expect(named, f"{trouble}: {error}", "told")
        else:
            stopped.add("lost", f"{trouble}: it went on")
    return [mended, stopped]


def collections(place: Path, troubles: tuple[str, ...]) -> list[Tally]:
    """Trouble in a collection: in the third episode of a process, or in every first one."""
    mended = Tally("a worker of a collection raises, dies or hangs now and then")
    stopped = Tally("a worker of a collection fails at the same episode again")
    undisturbed = run(place, "undisturbed", episodes=4)
    for trouble in troubles:
        for first, tally in ((2, mended), (0, stopped)):
            name = f"{trouble}-{first}"
            world = point_world(trouble=trouble, trouble_episode=first)
            try:
                made = run(place, name, world, episodes=4, patience=patience(trouble))
                assert_same_data(made, undisturbed)
                tally.expect(tally is mended, f"{name}: it went on")
            except UserError as error:
                named = re.search(r"train episode 0 .*; 0 of 4 episodes are kept", str(error))
                tally.expect(tally is stopped and bool(named), f"{name}: {error}", "told")
            except AssertionError as error:
                tally.add("lost", f"{name}: other data: {error}")
    return [mended, stopped]


def kept(place: Path) -> Tally:
    """Data collected before a failure are still there, and the same command goes on."""
    tally = Tally("a collection that stops at a failing episode")
    undisturbed = Dataset.open(place, "undisturbed")
    world = point_world(trouble="raise", trouble_episode=2)
    try:
        run(place, "stopped", world, episodes=4)
    except UserError as error:
        files = sorted(path.name for path in (place / "stopped" / "train").glob("0*.h5"))
        good = "train episode 2 failed" in str(error) and files == ["000000.h5", "000001.h5"]
        tally.expect(good, str(error), "told")
    world = point_world(trouble="raise", trouble_episode=2)
    assert_same_data(run(place, "stopped", world, episodes=4), undisturbed)
    return tally


def run_all(place: Path, troubles: tuple[str, ...] = TROUBLES) -> list[Tally]:
    """Everything of this kind."""
    return [*evaluations(place, troubles), *collections(place, troubles), kept(place)]
