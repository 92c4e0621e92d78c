"""Cube worlds for tests."""

import functools

from tests.helpers.worlds import world_of

make_world = functools.partial(world_of, "manipobj-v0", num_cubes=3, width=32, height=32)
