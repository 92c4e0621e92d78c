"""The environments that collection and drawing are measured in."""

from common.agent_files import make_world
from common.config import compose
from common.errors import UserError
from envs.base import World

WORLDS = {
    "PPP-Cube, 3 cubes": ("manipobj", ("env_kwargs.manipobj.num_cubes=3",)),
    "Scene": ("scene", ("task=visual-scene-v0",)),
    "Push-Tetris, 3 pieces": (
        "pushtetris",
        ("task=pushtetris-v0", "env_kwargs.pushtetris.num_objects=3"),
    ),
}


def make(
    title: str, steps: int, *, collects: bool = False, multiview: bool = False, fast: bool = False
) -> World:
    """The world of that title, with this many steps of an episode.

    `fast` is `render_quality=fast`; raises `UserError` for a world that has no such setting.
    """
    section, settings = WORLDS[title]
    changes = [*settings, f"max_episode_steps={steps}", f"multiview={str(multiview).lower()}"]
    if collects:
        changes.append(f"env_kwargs.{section}.mode=data_collection")
    if fast and not has_qualities(title):
        raise UserError(f"{title} is drawn in one quality only")
    if fast:
        changes.append(f"env_kwargs.{section}.render_quality=fast")
    return make_world(compose(changes))


def has_qualities(title: str) -> bool:
    """Whether the world has the setting `render_quality`."""
    return WORLDS[title][0] != "pushtetris"
