"""From a dataset on disk to a buffer of normalised observations."""

import torch
from torch import Tensor

from common.buffer import Buffer, GoalShares
from common.config import Config
from common.errors import UserError
from common.observations import Normaliser, Observation
from datasets.store import Dataset
from envs.base import World


def load_training_data(
    config: Config, world: World, observation: Observation, device: torch.device
) -> tuple[Buffer, Normaliser]:
    """Read the training episodes of `train_dataset_name` and fit the normaliser to them.

    Raises `UserError` if the dataset is missing or of another environment, or holds NaN.
    """
    dataset = Dataset.open(config.data_dir, config.train_dataset_name, world.collect_overrides())
    difference = world.compatible(dataset.header)
    if difference:
        raise UserError(f"dataset {dataset.folder} does not fit: {difference}")
    fields = _reward_fields(config, world)
    wanted = {observation.column, "actions", *fields}
    columns, length = dataset.load(sorted(wanted), div=config.train_dataset_div)
    rows = {name: torch.from_numpy(column) for name, column in columns.items()}
    for name, column in rows.items():
        if column.is_floating_point() and not torch.isfinite(column).all():
            raise UserError(f"dataset {dataset.folder} has NaN or infinity in column {name}")
    length = torch.from_numpy(length)
    obs = _encode(rows[observation.column], length, observation, config.seed)
    normaliser = Normaliser.fit(obs)
    buffer = Buffer(
        normaliser(obs).to(device),
        rows["actions"].to(device),
        length.to(device),
        {name: rows[name].to(device) for name in fields},
        world.reward if config.reward == "env" else None,
        value_goals=_shares(config, "value"),
        policy_goals=_shares(config, "policy"),
        gamma=config.gamma,
        subgoal_k=getattr(config.agent_settings, "subgoal_k", 1),
        done_signal=config.done_signal,
    )
    return buffer, normaliser.to(device)


def _reward_fields(config: Config, world: World) -> tuple[str, ...]:
    """The columns that the rewards of training are computed from."""
    if config.reward != "env":
        return ()
    if world.reward_within_episode and config.p_randgoal_value:
        raise UserError(
            f"p_randgoal_value={config.p_randgoal_value:g} is not possible with {world.name} and "
            "reward=env, which compares states of one episode only; set p_randgoal_value=0"
        )
    return world.reward_fields


def _encode(raw: Tensor, length: Tensor, observation: Observation, seed: int) -> Tensor:
    """All raw rows as observations, identities fixed per episode: (R, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    identities = observation.identities(len(length), generator)
    episodes = torch.repeat_interleave(torch.arange(len(length)), length)
    return observation.encode(raw, identities[episodes])


def _shares(config: Config, kind: str) -> GoalShares:
    names = (f"p_curgoal_{kind}", f"p_trajgoal_{kind}", f"p_randgoal_{kind}")
    return GoalShares(*(getattr(config, n) for n in (*names, f"geom_sample_{kind}")))
