"""Parts of other runs: the start of training, and the subgoal policy of `goal_pi_chkpt`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from common.data.normaliser import EPSILON, Normaliser
from common.foundation.errors import UserError
from common.runs.checkpoint import Checkpoint, load_checkpoint, summary
from common.runs.identity import Sources, source
from common.runs.setup import Setup
from common.settings.config import Config
from common.settings.inherit import DEFAULT_CHECKPOINT, find_checkpoint

KEY = "sgiql.goal_pi_chkpt"


def load_start(config: Config) -> Checkpoint | None:
    """The checkpoint that training starts from, if `train_from_checkpoint` asks for one.

    Raises `UserError` if there is none, if it is of another agent, task or observation, or if it
    can only act.
    """
    if not config.train_from_checkpoint:
        return None
    checkpoint = load_checkpoint(find_checkpoint(config.checkpoint, "checkpoint"))
    if checkpoint.acting_only:
        raise UserError(
            f"checkpoint={checkpoint.path} lacks what only learning reads; give the run that it "
            "was made from, or what `python -m common.runs.export` makes of that without --acting"
        )
    for name in ("agent", "task", "obs", "multiview"):
        theirs, ours = checkpoint.raw.get(name), getattr(config, name)
        if theirs != ours:
            raise UserError(
                f"checkpoint={checkpoint.path} does not fit: "
                f"it has {name}={theirs}, this run {name}={ours}"
            )
    return checkpoint


def start_sources(config: Config) -> Sources:
    """The checkpoints of other runs that these settings name, as far as they are there."""
    named = {
        "start": config.checkpoint if config.train_from_checkpoint else None,
        "subgoal policy": config.agent_settings.goal_pi_chkpt if _asked_for(config) else None,
    }
    paths = {name: Path(given) for name, given in named.items() if given}
    files = {name: p / DEFAULT_CHECKPOINT if p.is_dir() else p for name, p in paths.items()}
    return {name: source(p, summary(p)[1]) for name, p in files.items() if p.is_file()}


def load_goal_policy(setup: Setup, config: Config) -> None:
    """Fill an agent's subgoal policy with that of `goal_pi_chkpt`, if the settings ask for it.

    The two runs may differ in seed, and so in their normalisers as far as the same data allow.
    Raises `UserError` if there is no such checkpoint or its subgoal policy does not fit.
    """
    if not _asked_for(config):
        return
    checkpoint = load_checkpoint(find_checkpoint(config.agent_settings.goal_pi_chkpt, KEY))
    problem = _mismatch(checkpoint, config, setup.observation.encoder_sha256)
    if not problem:
        theirs = Normaliser(**checkpoint.state["normaliser"])
        learned = checkpoint.state["agent"]["subgoal"]
        parameters = learned.get("average", learned["module"])
        try:
            way = _conversion(setup.normaliser.to(torch.device("cpu")), theirs)
            setup.agent.subgoal_policy.adopt(parameters, *way)
        except (RuntimeError, UserError) as error:
            problem = " ".join(str(error).split())[:200]
    if problem:
        raise UserError(f"{KEY}={checkpoint.path} does not fit: {problem}")


def brings_goal_policy(checkpoint: Checkpoint, config: Config) -> bool:
    """Tell if an agent's own checkpoint holds the pretrained subgoal policy that is asked for."""
    stored = checkpoint.raw.get("sgiql", {})
    same = stored.get("goal_pi_chkpt") == getattr(config.agent_settings, "goal_pi_chkpt", None)
    return same and _asked_for(config) and _is_pretrained(checkpoint)


def _asked_for(config: Config) -> bool:
    return getattr(config.agent_settings, "load_pretrained_goal_pi", False)


def _is_pretrained(checkpoint: Checkpoint) -> bool:
    return "scale" in checkpoint.state["agent"].get("subgoal", {}).get("module", {})


def _mismatch(checkpoint: Checkpoint, config: Config, encoder: str | None) -> str | None:
    """The obstacle between the checkpoint's subgoal policy and this agent, in words, if any."""
    raw = checkpoint.raw
    if "subgoal" not in checkpoint.state["agent"]:
        return f"it holds an agent={raw['agent']}, which has no subgoal policy"
    if _is_pretrained(checkpoint):
        return f"it took its subgoal policy from {raw['sgiql']['goal_pi_chkpt']}; give that one"
    section = raw[raw["agent"]]
    theirs = {name: raw.get(name) for name in ("task", "obs", "multiview")}
    theirs |= _kind(section)
    ours = {name: getattr(config, name) for name in ("task", "obs", "multiview")}
    ours |= _kind(vars(config.agent_settings))
    for name, value in ours.items():
        if theirs.get(name) != value:
            return f"it has {name}={theirs.get(name)}, this agent {name}={value}"
    if checkpoint.encoder != encoder:
        return f"its encoder {raw['rep_model_checkpoint']} is not that of this agent"
    return None


def _kind(section: Mapping[str, Any]) -> dict[str, Any]:
    """Traits of a subgoal policy that parameters do not show; hiql's is of type standard."""
    kind = section.get("subgoal_policy_type", "standard")
    steps = {"n_diffusion_steps": section["n_diffusion_steps"]} if kind == "diffusion" else {}
    return {"subgoal_policy_type": kind, **steps}


def _conversion(here: Normaliser, there: Normaliser) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift (D,) from observations normalised here to those normalised there."""
    if here.mean.shape != there.mean.shape:
        raise UserError(f"its observations have {len(there.mean)} features, not {len(here.mean)}")
    deviation = torch.sqrt(there.var + EPSILON)
    return torch.sqrt(here.var + EPSILON) / deviation, (here.mean - there.mean) / deviation
