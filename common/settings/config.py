"""Every setting of the scripts: its type and range. The defaults stand in `config.yaml`."""

import dataclasses
import functools
import secrets
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.registry import (
    AGENTS,
    FROZEN,
    OBSERVATIONS,
    OGBENCH_WORLD,
    WORLDS,
    load,
    world_class,
)
from common.settings import schema as settings
from common.settings.checks import check_task, check_together
from common.settings.online import OnlineSettings
from common.settings.schema import CollectSettings, SettingError, setting

ROOT = Path(__file__).resolve().parents[2]
LARGEST_SEED = 2**32 - 1
_HYDRA_KEYS = ("defaults", "hydra")  # of config.yaml, not ours


@dataclass(frozen=True)
class Options:
    """The settings at the top of `config.yaml`, but for those of `CollectSettings`."""

    seed: int = setting(low=0, high=LARGEST_SEED)
    device: str = setting(identity=False)
    threads: int = setting(low=0, identity=False)
    deterministic: bool = setting(identity=False)

    output_dir: str = setting(identity=False)
    run_name: str | None = setting(identity=False)
    save_agent: bool = setting(identity=False)
    save_video: bool = setting(identity=False)

    enable_wandb: bool = setting(identity=False)
    wandb_project: str = setting(identity=False)
    wandb_entity: str | None = setting(identity=False)
    wandb_name_suffix: str = setting(identity=False)
    wandb_silent: bool = setting(identity=False)

    ogbench: bool = setting(identity=False)  # the task alone says it, see `_check_task`
    task: str = setting()
    obs: str = setting(choices=tuple(OBSERVATIONS))
    multiview: bool = setting()
    reward: str = setting(choices=("env", "unsupervised"))
    rep_model_checkpoint: str | None = setting()
    rep_model_device: str = setting(identity=False)
    dlp_post_training_num_kp: int = setting(low=-1)
    done_signal: bool = setting()
    gamma: float = setting(above=0, below=1)
    max_episode_steps: int | None = setting(low=1)

    data_dir: str = setting()
    train_dataset_name: str | None = setting()
    train_dataset_div: int = setting(low=1)
    clip_actions: bool = setting()
    skip_short_episodes: bool = setting()
    allow_changed_data: bool = setting(identity=False)

    steps: int = setting(low=1, identity=False)  # a finished run can be continued with more steps
    batch_size: int = setting(low=1)
    train_from_checkpoint: bool = setting()
    checkpoint: str | None = setting()
    parallel_update: str = setting(choices=("auto", "always", "never"), identity=False)
    compile: bool | str = setting(words=("auto",), identity=False)
    cudagraphs: bool | str = setting(words=("auto",), identity=False)
    updates_per_graph: int = setting(low=1, identity=False)
    autocast: bool = setting(identity=False)
    tf32: bool | str = setting(words=("auto",), identity=False)
    fused_adam: bool | str = setting(words=("auto",), identity=False)
    data_device: str = setting(choices=("auto", "device", "cpu"), identity=False)
    lr: float = setting(above=0)
    lr_decay_steps: int = setting(low=0)
    grad_clip_norm: float = setting(above=0)
    log_freq: int = setting(low=1)
    checkpoint_freq: int = setting(low=1, identity=False)

    p_curgoal_value: float = setting(low=0, high=1)
    p_trajgoal_value: float = setting(low=0, high=1)
    p_randgoal_value: float = setting(low=0, high=1)
    geom_sample_value: bool = setting()
    p_curgoal_policy: float = setting(low=0, high=1)
    p_trajgoal_policy: float = setting(low=0, high=1)
    p_randgoal_policy: float = setting(low=0, high=1)
    geom_sample_policy: bool = setting()

    eval_checkpoint: str | None = setting(identity=False)
    eval_variant_name: str = setting(identity=False)
    random_policy: bool = setting(identity=False)
    subgoal_factor_eval: bool = setting()
    eval_freq: int = setting(low=1)
    num_eval_episodes: int = setting(low=1)
    eval_task_ids: tuple[int, ...] = setting(low=1)
    num_eval_envs: int = setting(low=1, identity=False)
    num_workers: int = setting(low=0, identity=False)
    worker_timeout: float = setting(above=0, identity=False)
    worker_retries: int = setting(low=0, identity=False)
    num_video_episodes: int = setting(low=0, identity=False)
    video_frame_skip: int = setting(low=1, identity=False)

    dataset_name: str | None = setting(identity=False)
    num_collect_episodes: int = setting(low=1, identity=False)
    num_shards: int = setting(low=1, identity=False)
    shard: int = setting(low=0, identity=False)

    agent: str = setting(choices=tuple(AGENTS))


@dataclass(frozen=True)
class Config(Options):
    """All settings of one command, checked; sections of agents and worlds not chosen are left out.

    `arch_eit`, `arch_mlp` and `online` are the sections of those names, `world` that of the chosen
    task in `env_kwargs`, `agent_settings` that of the chosen agent; `eval_tasks` are
    `eval_task_ids` in a world with evaluation tasks, else none; `encoder` and `encoder_settings`,
    the section of the chosen kind in it, are for `visual_encoders.train`, `collect` for
    `collect.py`; `raw` has all keys of `config.yaml` in a plain dictionary. `max_episode_steps` is
    never None, and `train_dataset_name` is so only of agents that learn online.
    """

    arch_eit: Any
    arch_mlp: Any
    online: OnlineSettings
    encoder: Any
    encoder_settings: Any
    world: Any
    agent_settings: Any
    eval_tasks: tuple[int, ...]
    collect: CollectSettings
    raw: dict[str, Any]


def parse(raw: Mapping[str, Any]) -> Config:
    """Check a plain mapping with the keys of `config.yaml` and return it typed.

    `seed=random` is replaced by a number, null by what the world says, in `raw` of the result too.
    Sections of agents and worlds that are not chosen are checked all the same. Raises
    `SettingError`.
    """
    plain = dict(raw)
    if plain.get("seed") == "random":
        plain["seed"] = secrets.randbelow(50_001)
    checked = settings.build(_schema(), plain)
    check_task(checked)
    world = world_class(checked.task)
    check_together(checked, world.eval_tasks)
    section = getattr(checked.env_kwargs, world.section)
    defaults = world.defaults(checked.task, section)
    if learns_online(checked.agent):
        if checked.train_dataset_name:
            raise SettingError(
                f"agent={checked.agent} learns from what it does itself, not from "
                f"train_dataset_name={checked.train_dataset_name}; leave that out"
            )
        defaults.pop("train_dataset_name", None)
    own = {key: value for key, value in defaults.items() if getattr(checked, key) is None}
    checked = dataclasses.replace(checked, **own)

    def part(cls: type, section: Any = checked) -> dict[str, Any]:
        return {field.name: getattr(section, field.name) for field in dataclasses.fields(cls)}

    EncoderOptions = load("visual_encoders.settings:EncoderOptions")
    return Config(
        **part(Options),
        arch_eit=checked.arch_eit,
        arch_mlp=checked.arch_mlp,
        online=checked.online,
        encoder=EncoderOptions(**part(EncoderOptions, checked.encoder)),
        encoder_settings=getattr(checked.encoder, checked.encoder.kind),
        collect=CollectSettings(**part(CollectSettings)),
        world=section,
        agent_settings=getattr(checked, checked.agent),
        eval_tasks=checked.eval_task_ids if world.eval_tasks else (),
        raw=dataclasses.asdict(checked),
    )


def learns_online(agent: str) -> bool:
    """True if agents of that name act while they learn."""
    return load(AGENTS[agent]).learns_online


def identity(config: Config) -> dict[str, Any]:
    """Return, by dotted key, the settings that decide what a training run computes and records."""
    section = world_class(config.task).section
    parts = {
        "arch_eit": config.arch_eit,
        "arch_mlp": config.arch_mlp,
        f"env_kwargs.{section}": config.world,
        config.agent: config.agent_settings,
    }
    settings_of = decisive("", config, Options)
    if learns_online(config.agent):
        parts["online"] = config.online
    for path, part in parts.items():
        settings_of |= decisive(path, part, type(part))
    if not config.eval_tasks:
        del settings_of["eval_task_ids"]
    if config.obs not in FROZEN:
        del settings_of["rep_model_checkpoint"], settings_of["dlp_post_training_num_kp"]
    return settings_of


def decisive(path: str, part: Any, cls: type) -> dict[str, Any]:
    """Return, by dotted key under `path`, the fields of `cls` in `part` that tell runs apart."""
    return {
        settings.join(path, field.name): getattr(part, field.name)
        for field in dataclasses.fields(cls)
        if field.metadata.get("identity", True)
    }


def compose(overrides: Sequence[str] = ()) -> Config:
    """Return the settings of `config.yaml` with overrides such as `"sgiql.alpha=0.2"`."""
    from omegaconf import OmegaConf

    defaults = OmegaConf.create({k: v for k, v in read_yaml().items() if k not in _HYDRA_KEYS})
    changes = OmegaConf.from_dotlist(list(overrides))
    return parse(OmegaConf.to_container(OmegaConf.merge(defaults, changes), resolve=True))


def read_yaml(path: Path = ROOT / "config.yaml") -> dict[str, Any]:
    """Read `config.yaml` as it stands; raise `UserError` with the line of a syntax error."""
    import yaml
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


@functools.cache
def _schema() -> type:
    """Return the dataclass of the whole of `config.yaml`, every agent's and world's section in."""
    worlds = [load(target) for target in (*WORLDS.values(), OGBENCH_WORLD)]
    env_kwargs = dataclasses.make_dataclass(
        "EnvKwargs", [(world.section, world.Settings) for world in worlds], frozen=True
    )
    # Loaded here, not at the top: worker processes import this module and do without torch.
    agents = [(name, load(target).Settings) for name, target in AGENTS.items()]
    sections = [("arch_eit", load("agents.networks.entities:EITSettings"))]
    sections += [("arch_mlp", load("agents.networks.flat:MLPSettings"))]
    sections += [("online", OnlineSettings)]
    sections += [("encoder", load("visual_encoders.settings:encoder_schema")())]
    return dataclasses.make_dataclass(
        "Schema",
        [("env_kwargs", env_kwargs), *sections, *agents],
        bases=(Options, CollectSettings),
        frozen=True,
    )


def known_keys() -> list[str]:
    """Return every dotted key that may be given, sections included."""
    return _keys(_schema())


def _keys(cls: type, path: str = "") -> list[str]:
    keys = []
    for name, kind in typing.get_type_hints(cls).items():
        key = settings.join(path, name)
        keys.append(key)
        if dataclasses.is_dataclass(kind):
            keys.extend(_keys(kind, key))
    return keys
