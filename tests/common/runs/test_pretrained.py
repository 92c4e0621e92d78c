"""Two levels from two runs, and the competence radius that a checkpoint brings along."""

import shutil
from pathlib import Path

import pytest
import torch

import train
from agents.base import pad_rows
from agents.iql.pretrained import PretrainedSubgoals
from agents.iql.sgiql import CALIBRATION_PAIRS
from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation import evaluate as evaluation_run
from common.foundation.errors import UserError
from common.runs.agents import load_agent, save_checkpoint
from common.runs.checkpoint import load_checkpoint
from common.runs.folders import train_name
from common.runs.setup import Setup, make_setup
from common.settings.config import Config, compose, parse
from common.settings.inherit import merge
from envs.make import make_world
from tests.conftest import TINY
from tests.helpers.agents import act, generators, make_sgiql
from tests.helpers.networks import randomise
from tests.helpers.training import result
from tests.helpers.updates import make_buffer

CPU = torch.device("cpu")


def untrained(*overrides: str, mean: float = 0.0, var: float = 1.0) -> tuple[Config, Setup]:
    """Settings and setup of a tiny agent with random parameters."""
    config = compose([*TINY, *overrides])
    observation = make_observation(config.obs, make_world(config))
    width = observation.shape[-1:]
    normaliser = Normaliser(torch.full(width, mean), torch.full(width, var))
    setup = make_setup(config, observation.world, observation, normaliser)
    for learner in setup.agent.learners.values():
        randomise(learner.module)
    return config, setup


def store(path: Path, config: Config, setup: Setup) -> Path:
    save_checkpoint(path, config, setup, 7, {}, {})
    return path


@pytest.fixture
def low(tmp_path) -> tuple[Path, Setup]:
    """A run of the low level alone."""
    config, setup = untrained("agent=iql", "seed=1")
    return store(tmp_path / "low.safetensors", config, setup), setup


@pytest.fixture
def high(tmp_path) -> tuple[Path, Setup]:
    """A run whose subgoal policy is wanted."""
    config, setup = untrained("seed=2", mean=0.1, var=1.3)
    return store(tmp_path / "high.safetensors", config, setup), setup


def evaluated(path: Path, *given: str) -> Setup:
    """The agent as `evaluate.py eval_checkpoint=PATH` with further settings has it."""
    keys = [text.split("=")[0] for text in given]
    raw = compose(given).raw
    return load_agent(path, CPU, configure=lambda stored: parse(merge(stored, raw, keys)))[0]


def composed(low: Path, high: Path, *given: str) -> Setup:
    both = ("agent=sgiql", "sgiql.load_pretrained_goal_pi=true", f"sgiql.goal_pi_chkpt={high}")
    return evaluated(low, *both, *given)


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_agent_takes_one_level_from_each_run(low, high) -> None:
    agent = composed(low[0], high[0]).agent
    for name in ("value", "critic", "policy"):
        assert same(getattr(agent, name), getattr(low[1].agent, name))
    assert same(agent.subgoal_policy.policy, high[1].agent.subgoal_policy)
    obs, goal = torch.randn(2, 2, 15), torch.randn(2, 2, 15)
    action, _ = act(agent, obs, goal, [0, 0], None, [0, 1])
    assert torch.isfinite(action).all()


def test_observations_are_translated_between_the_two_normalisers(low, high) -> None:
    """The subgoal policy sees and answers what it would in its own run."""
    setup, other = composed(low[0], high[0]), high[1]
    raw = 0.5 * torch.randn(2, 4, 2, 15)
    noise = torch.randn(3, 4, 2, 15)
    ours, theirs = setup.normaliser, other.normaliser
    sampled = setup.agent.subgoal_policy.sample(*(ours(x) for x in raw), noise)
    expected = other.agent.subgoal_policy.sample(*(theirs(x) for x in raw), noise)
    torch.testing.assert_close(
        ours.inverse(sampled), theirs.inverse(expected), rtol=1e-3, atol=1e-3
    )


def test_with_the_same_normaliser_not_a_bit_changes(tmp_path) -> None:
    config, setup = untrained(mean=0.3, var=0.7)
    path = store(tmp_path / "run.safetensors", config, setup)
    agent = composed(path, path).agent
    obs, goal = torch.randn(3, 2, 15), torch.randn(3, 2, 15)
    wanted = setup.agent.sample_subgoals(obs, goal, 4, generators([0, 1, 2]))
    assert torch.equal(agent.sample_subgoals(obs, goal, 4, generators([0, 1, 2])), wanted)


def test_a_deterministic_subgoal_policy_is_translated_too() -> None:
    class Double(torch.nn.Module):
        def forward(self, obs, goal):
            return 2 * obs

    network = PretrainedSubgoals(Double(), 3)
    network.adopt({}, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 0.25, -0.5]))
    out = network(torch.ones(1, 3), torch.ones(1, 3))
    assert out.tolist() == [[2.0, (2 * 2.25 - 0.25) / 2, (2 * 0.0 + 0.5) / 0.5]]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["agent=iql"], "it holds an agent=iql, which has no subgoal policy"),
        (["obs=ec_state"], "it has obs=ec_state, this agent obs=ec_state_gen"),
        (["sgiql.n_diffusion_steps=4"], "it has n_diffusion_steps=4, this agent .*=3"),
        (["sgiql.subgoal_policy_type=standard"], "it has subgoal_policy_type=standard, this agent"),
        (["agent=hiql"], "it has subgoal_policy_type=standard, this agent"),
        (["arch_eit.embed_dim=12"], "size mismatch"),
    ],
)
def test_a_subgoal_policy_that_does_not_fit_is_refused(overrides, expected, low, tmp_path) -> None:
    path = store(tmp_path / "other.safetensors", *untrained(*overrides))
    with pytest.raises(
        UserError, match=f"goal_pi_chkpt={path} does not fit: .*{expected}"
    ) as error:
        composed(low[0], path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("mean", "var"), [(3.0, 1.0), (0.0, 9.0), (0.0, 0.1)])
def test_runs_on_too_different_data_are_refused(mean, var, low, tmp_path) -> None:
    path = store(tmp_path / "other.safetensors", *untrained(mean=mean, var=var))
    with pytest.raises(UserError, match="train both on the same dataset"):
        composed(low[0], path)


def test_a_subgoal_policy_of_a_third_run_is_refused(low, high, tmp_path) -> None:
    setup = composed(low[0], high[0])
    both = ("sgiql.load_pretrained_goal_pi=true", f"sgiql.goal_pi_chkpt={high[0]}")
    path = store(tmp_path / "chain.safetensors", compose([*TINY, *both]), setup)
    with pytest.raises(UserError, match=f"it took its subgoal policy from {high[0]}; give that"):
        composed(low[0], path)


def test_without_a_checkpoint_the_key_is_named(low) -> None:
    with pytest.raises(UserError, match=r"sgiql\.goal_pi_chkpt is not set"):
        evaluated(low[0], "agent=sgiql", "sgiql.load_pretrained_goal_pi=true")
    with pytest.raises(UserError, match="no checkpoint at nowhere"):
        composed(low[0], Path("nowhere"))


def test_an_iql_agent_acts_as_sgiql_only_without_subgoals_or_with_anothers(low) -> None:
    agent = evaluated(low[0], "agent=sgiql", "sgiql.disable_subgoal=true").agent
    obs, goal = torch.randn(1, 2, 15), torch.randn(1, 2, 15)
    action, _ = act(agent, obs, goal, [0], None, [0])
    with torch.no_grad():
        expected = low[1].agent.policy(pad_rows(obs), pad_rows(goal))
    assert torch.equal(action, expected[:1])
    with pytest.raises(UserError, match=r"needs sgiql\.disable_subgoal=true, or .*goal_pi_chkpt="):
        evaluated(low[0], "agent=sgiql")


def test_training_starts_from_the_parameters_and_scales_of_another_run(
    tiny_config, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(3))
    config, setup = untrained("agent=iql", "obs=ec_state", "seed=5", mean=0.2, var=2.0)
    first = store(tmp_path / "first.safetensors", config, setup)
    given = ("agent=iql", "train_from_checkpoint=true", f"checkpoint={first}", "lr=1e-9")
    config = tiny_config("steps=1", "log_freq=1", "obs=ec_state", *given)
    train.run(config)
    last = load_checkpoint(tmp_path / "train" / train_name(config) / "last.safetensors")
    before = load_checkpoint(first).state
    assert torch.equal(last.state["normaliser"]["mean"], before["normaliser"]["mean"])
    for name in ("value", "critic", "policy"):
        for key, tensor in before["agent"][name]["module"].items():
            assert torch.allclose(last.state["agent"][name]["module"][key], tensor, atol=1e-7)
    for wrong, problem in (
        (["agent=sgiql"], "it has agent=iql, this run agent=sgiql"),
        (["obs=ec_state_gen"], "it has obs=ec_state, this run obs=ec_state_gen"),
        (["arch_eit.h_dim=4"], "whose parameters do not fit"),
        (["checkpoint=null"], "checkpoint is not set"),
    ):
        with pytest.raises(UserError, match=problem):
            train.run(tiny_config("steps=1", "obs=ec_state", *given, *wrong))


def test_a_pretrained_subgoal_policy_is_not_trained_and_stays_with_the_agent(
    tiny_config, tmp_path, monkeypatch
) -> None:
    """Training on real data; the finished agent needs the other run's file no more."""
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(3))
    train.run(tiny_config("steps=2", "obs=ec_state", "seed=3", "run_name=high"))
    shutil.copy(tmp_path / "train/high/last.safetensors", tmp_path / "goals.safetensors")
    both = (
        "sgiql.load_pretrained_goal_pi=true",
        f"sgiql.goal_pi_chkpt={tmp_path}/goals.safetensors",
    )
    config = tiny_config("steps=3", "log_freq=3", "obs=ec_state", *both)
    train.run(config)
    (tmp_path / "goals.safetensors").unlink()
    last = tmp_path / "train" / train_name(config) / "last.safetensors"
    learned = load_checkpoint(last).state["agent"]["subgoal"]
    given = load_checkpoint(tmp_path / "train/high/last.safetensors").state["agent"]["subgoal"]
    assert learned.keys() == {"module"}
    for name, tensor in given["module"].items():
        assert torch.equal(learned["module"][f"policy.{name}"], tensor)
    assert (learned["module"]["scale"] == 1).all() and (learned["module"]["shift"] == 0).all()
    agent, other = evaluated(last).agent, evaluated(tmp_path / "train/high/last.safetensors").agent
    assert same(agent.subgoal_policy.policy, other.subgoal_policy)
    header = (last.parent / "train.csv").read_text().splitlines()[0]
    assert "policy/loss" in header and "subgoal/loss" not in header


# --- value_competence_radius=auto -----------------------------------------------------------------


def test_the_radius_is_what_v_gives_to_nine_in_ten_states_subgoal_k_apart() -> None:
    agent, buffer = make_sgiql(value_competence_radius="auto"), make_buffer()
    randomise(agent.value)
    agent.calibrate(buffer)
    generator = torch.Generator().manual_seed(0)
    values = agent.value(*buffer.pairs(CALIBRATION_PAIRS, 5, generator)).detach()
    below = (values < agent.radius).float().mean()
    assert 0.08 < below < 0.1 + 1e-6
    before = agent.radius
    agent.calibrate(buffer)
    assert agent.radius == before


def test_the_radius_is_stored_and_used(tmp_path) -> None:
    config, setup = untrained()
    setup.agent.derived_radius = torch.tensor(-12.5)
    path = store(tmp_path / "run.safetensors", config, setup)
    agent = evaluated(path, "sgiql.value_competence_radius=auto").agent
    obs, goal = torch.randn(1, 2, 15), torch.randn(1, 2, 15)
    assert agent.propose(obs, goal, generators([0])).radius == -12.5
    assert evaluated(path).agent.propose(obs, goal, generators([0])).radius == -30
    unfiltered = evaluated(path, "sgiql.filter_subgoals=false").agent
    assert unfiltered.propose(obs, goal, generators([0])).radius is None


def test_every_checkpoint_of_sgiql_has_the_radius_of_its_own_value(
    tiny_config, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(3))
    train.run(tiny_config("steps=4", "checkpoint_freq=2", "run_name=a"))
    states = [load_checkpoint(tmp_path / f"train/a/{n}.safetensors") for n in ("last", "best")]
    radii = [float(state.state["agent"]["calibration"]["radius"]) for state in states]
    assert radii[0] == radii[1] != 0


def test_without_it_auto_says_what_to_do(low, high) -> None:
    agent = composed(low[0], high[0], "sgiql.value_competence_radius=auto").agent
    with pytest.raises(UserError, match=r"value_competence_radius=auto needs .* such as -30"):
        agent.propose(torch.randn(1, 2, 15), torch.randn(1, 2, 15), generators([0]))
