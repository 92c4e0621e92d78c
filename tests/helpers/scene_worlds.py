"""Scenes for tests: small settings, and OGBench's own scene to compare with."""

import functools
from typing import Any

import numpy as np

from envs.rendering import without_backend
from envs.scene import rules
from tests.helpers.ogbench_cubes import copy_state
from tests.helpers.worlds import world_of

with without_backend():
    from ogbench.manipspace.envs.scene_env import SceneEnv

make_world = functools.partial(world_of, "visual-scene-v0", width=32, height=32)


def ogbench_scene(**settings: Any) -> SceneEnv:
    """Return OGBench's environment in its collection mode, reset, with the drawer unlocked."""
    env = SceneEnv(
        "scene", mode="data_collection", terminate_at_goal=False, visualize_info=False, **settings
    )
    env.reset(seed=0)
    env._cur_button_states = np.array([1, 0])
    env._apply_button_states()
    return env


def copy_scene(source: SceneEnv, target: Any) -> None:
    """Bring ours to the state of OGBench's, targets included."""
    target._cur_button_states = source._cur_button_states.copy()
    target._claim_model()
    copy_state(source, target)
    target._job = rules.Job("button")
    target._target = rules.Objects(
        source._data.mocap_pos[source._cube_target_mocap_ids].copy(),
        source._target_button_states.copy(),
        source._target_drawer_pos,
        source._target_window_pos,
    )
    target._prev_button_states = target._cur_button_states.copy()
    target._measure()
