"""Small files in OGBench's format, recorded in its own environments with random actions."""

from pathlib import Path

import gymnasium as gym
import numpy as np

from envs.ogbench.tasks import TASKS
from envs.rendering import without_backend

with without_backend():
    import ogbench  # noqa: F401  registers its environments

LENGTH = 21  # rows of an episode
TYPES = {"terminals": bool, "button_states": np.int64}  # others are float32


def rows_of(env: gym.Env, seed: int) -> list[dict]:
    """One episode as OGBench's collector stores it: row t is what was before action t."""
    obs, _ = env.reset(seed=seed)
    actions = np.random.default_rng(seed).uniform(-1, 1, (LENGTH, 5))
    rows = []
    for t, action in enumerate(actions):
        after, _, _, _, info = env.step(action)
        row = {"observations": obs, "actions": action, "terminals": t == LENGTH - 1}
        row |= {name: info[f"prev_{name}"] for name in ("qpos", "qvel")}
        if "prev_button_states" in info:
            row["button_states"] = info["prev_button_states"]
        rows.append(row)
        obs = after
    return rows


def record(folder: Path, name: str, episodes: int = 3) -> Path:
    """Write `name`.npz and return its path; images, of visual-* tasks, are noise."""
    env = gym.make(
        TASKS[name.removeprefix("visual-")].environment,
        disable_env_checker=True,
        mode="data_collection",
        terminate_at_goal=False,
        visualize_info=False,
    ).unwrapped
    rows = [row for seed in range(episodes) for row in rows_of(env, seed)]
    columns = {
        column: np.stack([row[column] for row in rows]).astype(TYPES.get(column, np.float32))
        for column in rows[0]
    }
    if name.startswith("visual-"):
        shape = (len(rows), 64, 64, 3)
        columns["observations"] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **columns)
    return path
