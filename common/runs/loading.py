"""From a dataset on disk to a buffer of normalised observations."""

import math

import numpy as np
import torch
from torch import Tensor

from agents.observations.states import Observation
from common.data.buffer import SHORTEST, Buffer
from common.data.goals import GoalLaw, GoalShares
from common.data.normaliser import Normaliser
from common.foundation.errors import UserError
from common.foundation.memory import free_memory
from common.foundation.messages import tell
from common.runs.identity import Sources, dataset_source, source
from common.settings.config import Config
from datasets.actions import check_actions
from datasets.ends import check_ends, columns_of_ends
from datasets.npz_dataset import open_dataset
from datasets.source import EpisodeSource
from envs.base import World

CHUNK = 1 << 16  # rows of a column that are computed at a time, to need no second one
RESERVED = 4 << 30  # bytes of a GPU that are left to networks and activations


def load_training_data(
    config: Config,
    world: World,
    observation: Observation,
    device: torch.device,
    normaliser: Normaliser | None = None,
    rewards: bool = True,
) -> tuple[Buffer, Normaliser]:
    """Read the training episodes of `train_dataset_name` and normalise them.

    Without a `normaliser`, one is fitted to them. Returns it with the buffer. `rewards=False`
    leaves out what they are computed from, for agents that learn without.

    Raises `UserError` if the dataset is missing or of another environment, lacks what is encoded,
    holds NaN, actions on another scale, episodes glued together or too short to learn from, or is
    larger than the memory.
    """
    dataset = _open(config, world, observation)
    use_rewards = rewards and config.reward == "env"
    fields = _reward_fields(config, world) if use_rewards else ()
    wanted = sorted({"actions", *fields})
    place = _choose_place(dataset, wanted, observation, config, device)
    rows, length = _read_columns(dataset, wanted, world, config)
    if observation.encoded:
        obs = observation.open(dataset, config.train_dataset_div, config.num_workers)
    else:
        obs = _encode(dataset, length, observation, config)
    length = torch.from_numpy(length)
    normaliser = normaliser or observation.fit(obs)
    if normaliser.scales and not observation.encoded:  # what is mapped stays as it is
        for part in obs.split(CHUNK):
            part.copy_(normaliser(part))
    normaliser = normaliser.to(device)
    buffer = Buffer(
        obs.to(place),
        rows["actions"].to(place),
        length.to(place),
        {name: rows[name].to(place) for name in fields},
        world.adopt(dataset.header).reward if use_rewards else None,
        goals=goal_law(config),
        done_signal=config.done_signal,
        normalise=normaliser.to(place) if observation.encoded else None,
        skip_short=config.skip_short_episodes,
    )
    return buffer, normaliser


def _read_columns(
    dataset: EpisodeSource, names: list[str], world: World, config: Config
) -> tuple[dict[str, Tensor], np.ndarray]:
    """Columns of all rows, actions among them, and the episodes' lengths; fit to learn from."""
    told_by = columns_of_ends(dataset)
    columns, length = dataset.load([*names, *told_by], div=config.train_dataset_div)
    check_ends(dataset, columns, length)
    _check_lengths(length, dataset, config.skip_short_episodes)
    rows = {name: torch.from_numpy(columns[name]) for name in names}
    for name, column in rows.items():
        _check_finite(column, name, dataset)
    blocks = (part.numpy() for part in rows["actions"].split(CHUNK))
    check_actions(blocks, world.actions, f"dataset {dataset}", config.clip_actions)
    if config.clip_actions:
        rows["actions"].clamp_(-1, 1)
    return rows, length


def data_sources(
    config: Config, world: World, observation: Observation, rewards: bool = True
) -> Sources:
    """Identity of what `load_training_data` reads; images that are not encoded yet are encoded."""
    dataset, div = _open(config, world, observation), config.train_dataset_div
    fields = _reward_fields(config, world) if rewards and config.reward == "env" else ()
    own = () if observation.encoded else (observation.column,)  # images are not read, but latents
    sources = {"dataset": dataset_source(dataset, ["actions", *fields, *own], div=div)}
    made = observation.derived(dataset, div, config.num_workers)
    return sources | {name: source(*entry) for name, entry in made.items()}


def _open(config: Config, world: World, observation: Observation) -> EpisodeSource:
    """The training dataset; raises `UserError` if it is missing or does not fit."""
    name, extra = config.train_dataset_name, observation.collect_overrides
    dataset = open_dataset(config.data_dir, name, world, extra)
    difference = world.compatible(dataset.header)
    if difference:
        raise UserError(f"dataset {dataset} does not fit: {difference}")
    observation.check(dataset)
    return dataset


def _reward_fields(config: Config, world: World) -> tuple[str, ...]:
    """The columns that the rewards of training are computed from."""
    if world.reward_within_episode and config.p_randgoal_value:
        raise UserError(
            f"p_randgoal_value={config.p_randgoal_value:g} is not possible with {world.name} and "
            "reward=env, which compares states of one episode only; set p_randgoal_value=0"
        )
    return world.reward_fields


def _choose_place(
    dataset: EpisodeSource,
    columns: list[str],
    observation: Observation,
    config: Config,
    device: torch.device,
) -> torch.device:
    """Choose by `data_device` where a buffer's tensors go: `device`, or main memory.

    Raises `UserError` if they are more than main memory or the chosen place can take: training that
    swaps would not end in years, or the system would kill it hours later.
    """
    cpu = torch.device("cpu")
    kinds = [dataset.column(name) for name in columns]
    row = sum(math.prod(shape) * dtype.itemsize for shape, dtype in kinds)
    rows = int(dataset.lengths(div=config.train_dataset_div).sum())

    def size(place: torch.device) -> int:
        mapped = observation.encoded and place.type == "cpu"  # stays on disk
        numbers = 0 if mapped else math.prod(observation.shape)
        return rows * (row + numbers * observation.dtype.itemsize)

    chosen = cpu if config.data_device == "cpu" else device
    if config.data_device == "auto" and chosen != cpu:
        free = free_memory(device) - RESERVED
        if size(device) > free:
            chosen = cpu
            tell(
                f"data_device=auto: main memory, since {device} has room for "
                f"{max(free, 0) / 2**30:.1f} of {size(device) / 2**30:.1f} GiB"
            )
    for place in dict.fromkeys((cpu, chosen)):
        needed, free = size(place), free_memory(place)
        if needed > free:
            div = config.train_dataset_div * math.ceil(needed / max(free, 1))
            raise UserError(
                f"dataset {dataset} takes {needed / 2**30:.1f} GiB of memory with "
                f"obs={config.obs}, {place} has {free / 2**30:.1f} GiB free; a part of it fits: "
                f"train_dataset_div={div}"
            )
    return chosen


def _encode(
    dataset: EpisodeSource, length: np.ndarray, observation: Observation, config: Config
) -> Tensor:
    """All rows as observations, identities fixed per episode: (R, *shape), not normalised.

    What they are made from, images perhaps, is read and dropped again episode by episode.
    """
    generator = torch.Generator().manual_seed(config.seed)
    identities = observation.identities(len(length), generator)
    obs = torch.empty(int(length.sum()), *observation.shape, dtype=observation.dtype)
    name, div = observation.column, config.train_dataset_div
    parts = obs.split(length.tolist())
    for part, own, episode in zip(parts, identities, dataset.stream([name], div=div), strict=True):
        raw = torch.from_numpy(episode[name])
        _check_finite(raw, name, dataset)
        part.copy_(observation.encode(raw, own.expand(len(raw), -1)))
    return obs


def _check_finite(column: Tensor, name: str, dataset: EpisodeSource) -> None:
    if not column.is_floating_point():
        return
    if not all(torch.isfinite(part).all() for part in column.split(CHUNK)):
        raise UserError(f"dataset {dataset} has NaN or infinity in column {name}")


def goal_law(config: Config) -> GoalLaw:
    """The law of the goals of values and policies."""
    return GoalLaw(_shares(config, "value"), _shares(config, "policy"), config.gamma)


def _check_lengths(length: np.ndarray, dataset: EpisodeSource, skip_short: bool) -> None:
    """Raise `UserError` for episodes that are too short, if they are not to be skipped or all."""
    short = np.flatnonzero(length < SHORTEST)
    if len(short) == 0 or (skip_short and len(short) < len(length)):
        return
    first = short[0]
    advice = "" if len(short) == len(length) else "; skip_short_episodes=true does without them"
    raise UserError(
        f"dataset {dataset}: {len(short)} of {len(length)} episodes have fewer than the {SHORTEST} "
        f"rows that training needs, first {dataset.locate('train', first)}: {length[first]}{advice}"
    )


def _shares(config: Config, kind: str) -> GoalShares:
    names = (f"p_curgoal_{kind}", f"p_trajgoal_{kind}", f"p_randgoal_{kind}")
    return GoalShares(*(getattr(config, n) for n in (*names, f"geom_sample_{kind}")))
