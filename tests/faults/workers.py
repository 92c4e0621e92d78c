"""Workers that raise, die or hang: the episode is named and tried again, the others are kept."""

import re
from functools import partial
from pathlib import Path
from typing import Any

from common.foundation.pool import Patience
from datasets.store import Dataset
from tests.faults.report import Tally, ending
from tests.helpers.datasets import assert_same_data, run
from tests.helpers.evaluation import run_fake
from tests.helpers.point_world import PointWorld, point_world

SILENCE = 90.0  # seconds after which a worker counts as hanging here: starts on a busy machine last
TROUBLES = ("raise", "die", "hang")
EPISODES = 4  # of an evaluation


def play(world: PointWorld, **options: Any) -> list[dict]:
    """The rows of an evaluation with two workers."""
    return run_fake(3, 2, world=world, episodes=EPISODES, **options).rows


def patience(trouble: str) -> Patience:
    """One more try; only those that hang are waited for."""
    return Patience(SILENCE if trouble == "hang" else 600.0, 1)


def evaluations(place: Path, troubles: tuple[str, ...]) -> list[Tally]:
    """Trouble in one episode of an evaluation: mended by another try, or reported."""
    mended = Tally("an environment of an evaluation raises, dies or hangs once")
    stopped = Tally("the same, again and again")
    undisturbed = play(point_world(12))
    episode = undisturbed[1]
    for trouble in troubles:
        marks = place / f"marks-{trouble}"
        marks.mkdir(parents=True)
        at = {"trouble": trouble, "trouble_seed": episode["seed"], "marks": str(marks)}
        rows = play(point_world(12, **at), patience=patience(trouble))
        mended.expect(rows == undisturbed, f"{trouble}: other results")
        world = point_world(12, **at, times=99)
        try:
            play(world, patience=patience(trouble))
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
            options = {"episodes": 4, "patience": patience(trouble)}
            collect = partial(run, place, name, world, **options)
            end, text = ending(lambda make=collect: assert_same_data(make(), undisturbed))
            if tally is mended:
                tally.expect(end == "harmless", f"{name}: {text}")
            else:
                named = re.search(r"train episode 0 .*; 0 of 4 episodes are kept", text)
                tally.expect(
                    end == "told" and bool(named), f"{name}: {text or 'it went on'}", "told"
                )
    return [mended, stopped]


def kept(place: Path) -> Tally:
    """Data collected before a failure are still there, and the same command goes on."""
    tally = Tally("a collection that stops at a failing episode")
    world = point_world(trouble="raise", trouble_episode=2)
    end, text = ending(lambda: run(place, "stopped", world, episodes=4))
    files = sorted(path.name for path in (place / "stopped" / "train").glob("0*.h5"))
    good = "train episode 2 failed" in text and files == ["000000.h5", "000001.h5"]
    tally.expect(end == "told" and good, text, "told")
    undisturbed = Dataset.open(place, "undisturbed")
    assert_same_data(run(place, "stopped", world, episodes=4), undisturbed)
    return tally


def run_all(place: Path, troubles: tuple[str, ...]) -> list[Tally]:
    return [*evaluations(place, troubles), *collections(place, troubles), kept(place)]
