"""OGBench's own cube environment, to compare ours with."""

import numpy as np

from envs.rendering import without_backend

with without_backend():
    import mujoco
    from ogbench.manipspace.envs.cube_env import CubeEnv


class HeavyCubeEnv(CubeEnv):
    """Three cubes of this benchmark's density, and the benchmark's cameras at the side."""

    def add_objects(self, arena_mjcf):
        super().add_objects(arena_mjcf)
        for name in ("object_0", "object_1", "object_2"):
            arena_mjcf.find("geom", name).density = 8000
        for name, position, axes in (
            ("side", (0.414, -0.753, 0.639), (1, 0, 0, -0.001, 0.628, 0.778)),
            ("side_of_stacks", (0.400, -0.987, 0.509), (1, 0, 0, 0, 0.342, 0.940)),
        ):
            arena_mjcf.worldbody.add("camera", name=name, pos=position, xyaxes=axes)


def ogbench_env(mode: str, **settings) -> HeavyCubeEnv:
    """Return OGBench's environment, reset. It does not recolour robots if it observes states."""
    env = HeavyCubeEnv(
        "triple", mode=mode, terminate_at_goal=False, visualize_info=False, **settings
    )
    env.reset(seed=0)
    return env


def copy_state(source, target) -> None:
    """Bring the simulation of `target` to the state of `source`."""
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(source.model, spec))
    mujoco.mj_getState(source.model, source.data, state, spec)
    for env in (source, target):
        mujoco.mj_setState(env.model, env.data, state, spec)
        mujoco.mj_forward(env.model, env.data)
