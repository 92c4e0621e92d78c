"""Speed of agents that act while they learn, and the shares of acting, learning and waiting.

python -m benchmarks.online [--updates 1000] [--overrides SETTING...]

Trains a little, each time from nothing: with acting and learning in turn, side by side, and with
hardly any acting. Takes the training of `commands/quickstart_pushing.sh` unless overridden.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Row, Table, arguments, publish
from common.foundation.errors import UserError, one_line_errors
from common.runs.curves import read_csv

COMMAND = Path(__file__).parent.parent / "commands" / "quickstart_pushing.sh"
VARIANTS = {
    "in turn": ["online.overlap=false"],
    "side by side": ["online.overlap=true"],
    "learning alone": ["online.overlap=false", "online.updates_per_step=1000"],
}


def preset() -> list[str]:
    """The overrides of the quickstart's training."""
    text = COMMAND.read_text()
    parts = [re.search(rf"^{name}=\((.*?)\)$", text, re.M | re.S) for name in ("preset", "sight")]
    world = "task=pushing-v0 env_kwargs.pushing.num_objects=1"
    words = shlex.split(" ".join([world, *(part[1] for part in parts)]))
    return [word for word in words if not word.startswith("run_name=")]


def train(name: str, updates: int, overrides: list[str], folder: Path) -> dict[str, float]:
    """Seconds of an update without the first tenth of them, and environment steps of one."""
    rhythm = [f"steps={updates}", f"log_freq={updates // 10}", "save_agent=false"]
    rhythm += [f"eval_freq={10 * updates}", "num_eval_episodes=1", "max_episode_steps=2"]
    own = [f"output_dir={folder}", f"run_name={name.replace(' ', '-')}"]
    command = [sys.executable, "train.py", *preset(), *rhythm, *own, *VARIANTS[name], *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    run = folder / "train" / own[1].partition("=")[2]
    timing, training = read_csv(run / "timing.csv"), read_csv(run / "train.csv")
    seconds = sum(timing["seconds"][1:]) / (updates * 0.9)
    acted = training["env_steps"][-1] - training["env_steps"][0]
    return {"seconds": seconds, "env_steps": acted / (updates * 0.9)}


def rows(found: dict[str, dict[str, float]]) -> list[Row]:
    base, alone = found["in turn"]["seconds"], found["learning alone"]["seconds"]
    return [
        {
            "": name,
            "updates/s": 1 / own["seconds"],
            "environment steps/s": own["env_steps"] / own["seconds"],
            "share of learning": alone / own["seconds"],
            "speed-up": base / own["seconds"],
        }
        for name, own in found.items()
    ]


def main() -> None:
    extra = {"updates": {"type": int, "default": 1000, "help": "of each training"}}
    extra["overrides"] = {"nargs": "*", "default": [], "help": "settings of training"}
    options = arguments(__doc__, **extra)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found = {name: train(name, options.updates, options.overrides, place) for name in VARIANTS}
    publish("online", options, [Table("One cube, learned while acting", rows(found))])


if __name__ == "__main__":
    with one_line_errors():
        main()
