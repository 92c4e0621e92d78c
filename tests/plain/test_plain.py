"""The fast paths against plainly written ones, which the benchmarks compare with them."""

import pytest
import torch

from agents.iql.iql import IQL
from agents.networks.families import make_networks
from agents.networks.layers import PAIRWISE_LIMIT
from agents.observations.spec import ObservationSpec
from benchmarks.subjects import SUBJECTS, TINY, made_up
from common.data.draws import Draws
from tests.helpers.agents import CPU, SETS
from tests.helpers.networks import SMALL, SMALL_MLP, SPECS, observations, randomise
from tests.helpers.updates import make_buffer
from tests.plain import sampling as plain_sampling
from tests.plain.agent import PlainAgent
from tests.plain.networks import plain

KINDS = ("entities", "particles", "flat")  # images have an encoder, which no fast path touches
MANY = ObservationSpec("entities", (9, 7))  # more pairs than attention computes one by one


@pytest.mark.parametrize("spec", [*(SPECS[kind] for kind in KINDS), MANY])
def test_networks_compute_what_plain_ones_do(spec: ObservationSpec) -> None:
    """Above all attention, in both of its forms."""
    assert 4**2 <= PAIRWISE_LIMIT < 9**2
    torch.manual_seed(0)
    networks = make_networks(spec, 3, SMALL, SMALL_MLP)
    obs, goal = observations(spec, 5)
    action = torch.rand(5, 3)
    policy, value = randomise(networks.policy()), randomise(networks.value())
    critic = randomise(networks.critic(2))
    close(torch.tanh(plain(policy)(obs, goal)), policy(obs, goal))
    close(plain(value)(obs, goal).squeeze(-1), value(obs, goal))
    for member, expected in enumerate(critic(obs, action, goal)):
        close(plain(critic, member)(obs, goal, action).squeeze(-1), expected)


@pytest.mark.parametrize("spec", [SPECS["entities"], SPECS["particles"], MANY])
def test_the_denoiser_computes_what_a_plain_one_does(spec: ObservationSpec) -> None:
    """Its last block leaves out the slots that nobody asks for."""
    torch.manual_seed(0)
    diffuser = randomise(make_networks(spec, 3, SMALL, SMALL_MLP).diffuser(10))
    sets, t = torch.randn(3, 4, *spec.shape), torch.tensor([0, 3, 7, 9])
    close(plain(diffuser)(*sets, t), diffuser.denoiser(*sets, t))


def close(one: torch.Tensor, two: torch.Tensor) -> None:
    assert one.shape == two.shape
    assert torch.allclose(one, two, rtol=1e-3, atol=1e-3 * two.detach().abs().max().item())


@pytest.mark.parametrize("name", ["sgiql-3-cubes", "iql-flat", "sgiql-dlp-2"])
def test_updates_are_those_of_a_plain_agent(name: str) -> None:
    """Losses, and after them the parameters of every network, whose gradients agreed then."""
    subject = SUBJECTS[name]
    agent = subject.agent(subject.config(*TINY), CPU)
    other, draws = PlainAgent(agent), Draws(made_up(subject.spec, 200, 40), 8, 0, agent.wants)
    for step in (1, 2, 3):
        batch, generator = draws(step)
        noise = agent.draw_noise(batch, generator)
        metrics, losses = agent.update(batch, noise), other.update(batch, noise)
        for key, loss in losses.items():
            assert metrics[f"{key}/loss"].item() == pytest.approx(loss, rel=1e-3, abs=1e-5), key
    for ours, theirs in pairs(agent, other):
        for p, q in zip(plain(*ours).parameters(), theirs.parameters(), strict=True):
            # Adam turns the tiniest gradients, where rounding decides, into whole steps.
            assert (p - q).abs().median() < 1e-6


def pairs(agent: IQL, other: PlainAgent):
    """Each network of one agent with the other's."""
    yield (agent.value,), other.value
    yield (agent.policy,), other.policy
    for member in range(2):
        yield (agent.critic, member), other.critics[member]
        yield (agent.target_critic, member), other.targets[member]
    if other.diffuser is not None:
        yield (agent.subgoal_policy,), other.diffuser


@pytest.mark.parametrize("buffer", [make_buffer(SETS), made_up(SPECS["flat"], 300, 30)])
def test_batches_are_those_gathered_from_whole_episodes(buffer) -> None:
    one = buffer.sample(64, torch.Generator().manual_seed(3))
    two = plain_sampling.sample(buffer, 64, torch.Generator().manual_seed(3))
    assert (one == two).all()
