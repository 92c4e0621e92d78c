"""Our TD3 with hindsight goals beside Stable-Baselines3's: success, and time of the same steps.

python -m benchmarks.sb3 [--updates 20000] [--seed 0]

Both push one cube (`task=pushing-v0`) with flat networks and the settings of
`commands/quickstart_pushing.sh`, as far as the library has them: 16 environments, a quarter of an
update for a step, MLPs of three layers of 128, batches of 256. It has no normaliser, no share of
batches from episodes in which the cube moved, and no penalty of actions; its hindsight goals are of
the same share. Needs `pip install stable-baselines3`.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks.measure import Row, Table, arguments, publish
from benchmarks.online import preset
from common.evaluation.intervals import proportion
from common.foundation.errors import one_line_errors
from common.runs.curves import read_csv
from common.settings.config import compose
from envs.base import GoalWorld
from envs.make import make_world

WORLD = ["task=pushing-v0", "env_kwargs.pushing.num_objects=1"]
ENVS, STEPS, EPISODES = 16, 30, 100  # environments, steps of an episode, episodes of an evaluation


class GoalEnvironment(gym.Wrapper):
    """A world as the library wants it: state, what is achieved, and what is wanted."""

    def __init__(self, world: GoalWorld, limit: int) -> None:
        super().__init__(gym.wrappers.TimeLimit(world.simulator(False), limit))
        self.world = world
        space = self.env.observation_space
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = gym.spaces.Dict(dict.fromkeys(names, space))

    def reset(self, **options: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        state, info = self.env.reset(**options)
        self.wanted = info["state_goal"]
        return self._observed(state), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        state, reward, terminated, truncated, info = self.env.step(action)
        about = {"is_success": info["success"]}
        return self._observed(state), reward, terminated, truncated, about

    def compute_reward(self, achieved: np.ndarray, wanted: np.ndarray, info: Any) -> np.ndarray:
        column = self.world.state_column
        rows, goals = ({column: torch.from_numpy(x)} for x in (achieved, wanted))
        return self.world.reward(rows, goals).numpy()

    def _observed(self, state: np.ndarray) -> dict[str, np.ndarray]:
        return {"observation": state, "achieved_goal": state, "desired_goal": self.wanted}


def theirs(updates: int, seed: int) -> Row:
    """The library's agent, after so many updates."""
    from stable_baselines3 import TD3, HerReplayBuffer
    from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
    from stable_baselines3.common.vec_env import SubprocVecEnv

    world = make_world(compose(WORLD))
    makers = [lambda: GoalEnvironment(world, STEPS)] * ENVS
    envs = SubprocVecEnv(makers, start_method="spawn")
    noise = VectorizedActionNoise(NormalActionNoise(np.zeros(3), np.full(3, 0.2)), ENVS)
    agent = TD3(
        "MultiInputPolicy",
        envs,
        learning_rate=1e-3,
        learning_starts=64 * STEPS,
        batch_size=256,
        tau=0.01,
        gamma=0.95,
        train_freq=(STEPS, "step"),
        gradient_steps=ENVS * STEPS // 4,
        action_noise=noise,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        policy_kwargs={"net_arch": [128, 128, 128]},
        seed=seed,
        device="cpu",
    )
    began = time.perf_counter()
    agent.learn(64 * STEPS + 4 * updates)
    seconds = time.perf_counter() - began
    env, successes = GoalEnvironment(world, world.max_episode_steps), []
    for episode in range(EPISODES):
        observed, _ = env.reset(seed=seed + 1000 + episode)
        done = False
        while not done:
            action, _ = agent.predict(observed, deterministic=True)
            observed, _, _, done, info = env.step(action)
        successes.append(float(info["is_success"]))
    envs.close()
    found = proportion(successes)
    figures = found.mean, found.low, found.high
    return _row("Stable-Baselines3", figures, agent.num_timesteps, seconds)


def ours(updates: int, seed: int, folder: Path) -> Row:
    """Our agent, with its evaluation apart from the time."""
    rhythm = [f"steps={updates}", f"log_freq={updates}", f"eval_freq={updates}"]
    own = [f"output_dir={folder}", "run_name=run", f"seed={seed}"]
    command = [sys.executable, "train.py", *preset(), *rhythm, *own]
    subprocess.run([*command, f"num_eval_episodes={EPISODES}"], check=True, capture_output=True)
    run = folder / "train" / "run"
    found = read_csv(run / "eval.csv")
    figures = [found[f"success{end}"][-1] for end in ("", "_low", "_high")]
    seconds = read_csv(run / "timing.csv")["seconds"][-1]
    return _row("ours", figures, found["env_steps"][-1], seconds)


def _row(name: str, success: Any, steps: float, seconds: float) -> Row:
    mean, low, high = success
    return {
        "": name,
        "success": f"{mean:.2f} [{low:.2f}, {high:.2f}]",
        "environment steps": int(steps),
        "minutes": seconds / 60,
        "ms per environment step": 1000 * seconds / steps,
    }


def main() -> None:
    number = {"type": int, "default": 20_000, "help": "of both"}
    options = arguments(__doc__, updates=number, seed=number | {"default": 0})
    with tempfile.TemporaryDirectory() as folder:
        rows = [ours(options.updates, options.seed, Path(folder))]
    rows.append(theirs(options.updates, options.seed))
    publish("sb3", options, [Table("One cube from flat states, one seed", rows)])


if __name__ == "__main__":
    with one_line_errors():
        main()
