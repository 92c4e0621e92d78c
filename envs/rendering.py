"""Choice of the OpenGL backend that draws frames, and what to install if there is none.

MuJoCo and dm_control choose a backend when they are imported: with a wrong `MUJOCO_GL` the import
fails, without a display it warns, with EGL it takes a second and opens the GPU. Simulating needs
none of it, so the simulator is imported inside `without_backend`, and `open_renderer` connects
the backend when the first frame is wanted.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from common.foundation.errors import UserError
from common.foundation.processes import environment_variable

if TYPE_CHECKING:
    import mujoco

# What `render_quality` sets of a model: side of the shadow map in pixels, samples of a pixel.
# `full` leaves MuJoCo's defaults, 4096 and 4, which the published data were drawn with.
QUALITIES: dict[str, tuple[int, int] | None] = {"full": None, "fast": (1024, 0)}
PROBE_SECONDS = 60
SUBGOAL_ALPHA = 0.35  # of ghosts
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
mujoco.Renderer(model, 8, 8).render()
"""
_HELP = (
    "install EGL with `apt-get install libegl1`, or OSMesa with `apt-get install libosmesa6` and "
    "set MUJOCO_GL=osmesa"
)


def backend() -> str:
    """Return the OpenGL backend to use: the user's `MUJOCO_GL`, else EGL if there is no screen."""
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        return chosen
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
    if headless:
        return "egl"
    return "cgl" if sys.platform == "darwin" else "glfw"


def without_backend() -> AbstractContextManager[None]:
    """Import MuJoCo in here: no OpenGL library is loaded, whatever `MUJOCO_GL` says."""
    return environment_variable("MUJOCO_GL", "disable")


def open_renderer(
    model: mujoco.MjModel, height: int, width: int, quality: str = "full"
) -> mujoco.Renderer:
    """Create the OpenGL context and return MuJoCo's renderer for frames (height, width, 3).

    `quality` is a key of `QUALITIES`. Raises `UserError` with the package to install if it fails.
    """
    import mujoco
    from mujoco.rendering.classic import gl_context

    name = backend()
    try:
        gl_context.GLContext = importlib.import_module(f"mujoco.{name}").GLContext
        with _drawn_with(model, quality):
            return mujoco.Renderer(model, height=height, width=width)
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise UserError(_message(name, str(error))) from error


@contextmanager
def _drawn_with(model: mujoco.MjModel, quality: str) -> Iterator[None]:
    """Give a model this quality in the block, in which a renderer reads it once and for all."""
    settings = model.vis.quality
    before = settings.shadowsize, settings.offsamples
    settings.shadowsize, settings.offsamples = QUALITIES[quality] or before
    try:
        yield
    finally:  # other environments share the model
        settings.shadowsize, settings.offsamples = before


def check_process() -> None:
    """Raise `UserError` in a process forked from one that has drawn: its first frame would hang."""
    if _first_drawn_in() != os.getpid():
        raise UserError(
            "no frames can be drawn in a process forked from one that has drawn frames; start it "
            'with spawn: AsyncVectorEnv(..., context="spawn"), SubprocVecEnv(..., '
            'start_method="spawn")'
        )


@functools.cache  # a forked process inherits it, as it does what the graphics library holds
def _first_drawn_in() -> int:
    return os.getpid()


@functools.lru_cache(maxsize=4)  # as many as models that are kept
def shared_renderer(
    model: mujoco.MjModel, height: int, width: int, quality: str = "full"
) -> mujoco.Renderer:
    """Return `open_renderer`'s of this model, the same one to everybody in the process.

    Several OpenGL contexts in one process cost memory and time and are known to hang, and many
    environments of a process draw where observations are images.
    """
    renderer = open_renderer(model, height, width, quality)
    atexit.register(renderer.close)  # while the graphics library is still there
    return renderer


def rendering_problem() -> str | None:
    """Return why no frame can be drawn on this machine, in one line, or None if it works.

    Draws one frame in a process of its own: a broken driver can crash or hang its caller.
    """
    return _probe(backend())


@functools.cache
def _probe(name: str) -> str | None:
    command = [sys.executable, "-c", _PROBE]
    try:
        result = subprocess.run(
            command,
            env=os.environ | {"MUJOCO_GL": name},
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _message(name, f"no frame after {PROBE_SECONDS} seconds")
    if result.returncode == 0:
        return None
    return _message(name, (result.stderr.strip().splitlines() or ["it crashed"])[-1])


def _message(name: str, reason: str) -> str:
    reason = " ".join(reason.split())
    return f"no frames can be drawn with MUJOCO_GL={name} ({reason}); {_HELP}"


def add_ghost(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: np.ndarray,
    position: np.ndarray,
    quaternion: np.ndarray,
    color: np.ndarray,
) -> None:
    """Put a translucent shape into a scene that is about to be drawn."""
    import mujoco

    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    rgba = np.array([*color[:3], SUBGOAL_ALPHA], dtype=np.float32)
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, position, matrix, rgba)
    scene.ngeom += 1


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """One picture of several views: (V, H, W, 3) -> (H, V W, 3); (H, W, 3) stays."""
    return np.concatenate(list(frames), axis=1) if frames.ndim == 4 else frames
