"""The pool of worker processes: failures are reported, nothing is left behind."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from common.evaluation.environments import EnvPool, Start, Step
from common.foundation.errors import UserError
from common.foundation.pool import JobFailed, Patience
from tests.helpers.corridor_world import corridor_world
from tests.helpers.point_world import NearPointWorld, PointEnv, PointWorld, point_world
from tests.helpers.processes import alive, wait_for

REPOSITORY = Path(__file__).resolve().parents[3]
STILL = Step(np.zeros(2, np.float32))


class WorkerProbe(PointEnv):
    """Tells through its state what the worker process looks like."""

    def step(self, action):
        obs, *rest, info = super().step(action)
        state = [float("torch" in sys.modules), float(os.environ["OMP_NUM_THREADS"])]
        return obs, *rest, info | {"state_obs": np.array(state)}


class ProbeWorld(PointWorld):
    def simulator(self, pixels):
        return WorkerProbe(self.settings)


class BrokenWorld(PointWorld):
    def simulator(self, pixels):
        raise UserError("num_cubes=0; give a number from 1 to 6")


def troubled(kind: str, world: type[PointWorld] = PointWorld) -> PointWorld:
    """Its episodes of seed 42 end badly, at once."""
    return point_world(12, world, trouble=kind, trouble_seed=42, trouble_step=1)


def test_an_episode_runs_to_its_end_and_reports_its_metrics():
    with EnvPool(point_world(3), num_envs=3, workers=2) as pool:
        first = pool.exchange({slot: Start(slot, 100 + slot) for slot in range(3)})
        assert list(first) == [0, 1, 2]
        assert all(reply.goal.dtype == np.float32 for reply in first.values())
        for _ in range(2):
            assert pool.exchange({1: STILL})[1].metrics is None
        ended = pool.exchange({1: STILL})[1]
        assert ended.metrics["episode_length"] == 3
        again = pool.exchange({1: Start(3, 101)})[1]
        np.testing.assert_array_equal(again.observation, first[1].observation)


def test_workers_use_one_thread_and_no_torch_and_leave_the_parents_variables_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with EnvPool(point_world(5, ProbeWorld), num_envs=1, workers=1) as pool:
        pool.exchange({0: Start(0, 0)})
        assert pool.exchange({0: STILL})[0].observation.tolist() == [0.0, 1.0]
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_only_slots_with_a_camera_film():
    with EnvPool(point_world(), num_envs=3, workers=2) as pool:
        assert list(pool.camera_slots) == [0, 1]
        with pytest.raises(ValueError, match="slot 2"):
            pool.exchange({2: Start(0, 0, film=True)})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raise", r"^episode 8 \(seed 42\) failed: ZeroDivisionError: the point left the plane"),
        ("die", r"episode 8 \(seed 42\) died with exit code -9"),
    ],
)
def test_trouble_names_episode_seed_and_reason(kind, reason):
    with EnvPool(troubled(kind), num_envs=2, workers=2) as pool:
        pool.exchange({0: Start(0, 41), 1: Start(8, 42)})
        with pytest.raises(JobFailed, match=reason):
            pool.exchange({0: STILL, 1: STILL})


def test_a_mistake_of_the_user_stays_one_line():
    with (
        EnvPool(point_world(5, BrokenWorld), 1, 1) as pool,
        pytest.raises(UserError, match=r"^num_cubes=0; give"),
    ):
        pool.exchange({0: Start(0, 0)})


def test_a_hanging_worker_is_reported_and_killed():
    world = troubled("hang")
    with EnvPool(world, num_envs=1, workers=1, patience=Patience(30.0)) as pool:
        pool.exchange({0: Start(6, 42)})
        pool.patience = Patience(0.2)
        with pytest.raises(JobFailed, match=r"episode 6 \(seed 42\) has been silent for 0.2 s"):
            pool.exchange({0: STILL})
        pid = pool.workers[0].process.pid
    wait_for(lambda: not alive(pid), 1.0)


def test_closing_ends_the_workers_whatever_happened():
    pool = EnvPool(point_world(), num_envs=2, workers=2)
    pids = [worker.process.pid for worker in pool.workers]
    with pytest.raises(KeyboardInterrupt), pool:
        pool.exchange({0: Start(0, 0)})
        raise KeyboardInterrupt
    wait_for(lambda: not any(map(alive, pids)), 1.0)


def test_workers_end_when_their_master_is_killed():
    program = """
        import os, signal
        from common.evaluation.environments import EnvPool, Start
        from tests.helpers.point_world import point_world
        if __name__ == "__main__":
            pool = EnvPool(point_world(), num_envs=2, workers=2)
            pool.exchange({0: Start(0, 0), 1: Start(1, 1)})
            print(*[worker.process.pid for worker in pool.workers], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    wait_for(lambda: not any(map(alive, pids)))


def test_in_this_process_an_error_is_as_in_a_worker_and_replies_are_copies():
    world = troubled("raise", NearPointWorld)
    with EnvPool(world, num_envs=2, workers=2, patience=Patience(60, 1)) as pool:
        assert list(pool.camera_slots) == [0] and pool.workers[0].messages is not None
        first = pool.exchange({0: Start(0, 41), 1: Start(8, 42)})
        second = pool.exchange({0: STILL, 1: STILL})
        assert not np.shares_memory(first[0].observation, second[0].observation)
        assert "episode 8 (seed 42) failed: ZeroDivisionError: the point left" in second[1].reason
        pool.exchange({1: Start(8, 42)})
        with pytest.raises(JobFailed, match=r"episode 8 \(seed 42\).*left the plane"):
            pool.exchange({1: STILL})


def test_replies_tell_reward_and_how_an_episode_ended():
    with EnvPool(point_world(2, NearPointWorld), 1, 1) as pool:
        pool.exchange({0: Start(0, 100)})
        replies = [pool.exchange({0: STILL})[0] for _ in range(2)]
        assert [reply.reward for reply in replies] == [-1.0, -1.0]
        assert [reply.truncated for reply in replies] == [False, True]
        assert not any(reply.terminated for reply in replies)


def test_a_world_without_goals_replies_none():
    right = np.array([0, 0, 1], np.float32)
    with EnvPool(corridor_world(2), num_envs=1, workers=1) as pool:
        assert pool.exchange({0: Start(0, 1)})[0].goal is None
        replies = [pool.exchange({0: Step(right)})[0] for _ in range(2)]
    assert replies[0].metrics is None and replies[1].metrics["episode_length"] == 2
    assert replies[1].observation >= replies[0].observation


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="num_envs=0"):
        EnvPool(point_world(), num_envs=0, workers=1)
