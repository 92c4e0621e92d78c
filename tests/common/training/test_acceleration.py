"""Compiled and captured updates against the eager ones; the switches and their refusals."""

import contextlib
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from common.data.draws import Draws
from common.foundation.errors import UserError
from common.runs.checkpoint import flatten
from common.settings.config import compose, identity
from common.settings.schema import SettingError
from common.training.acceleration import (
    EAGER,
    WARM_UP,
    Acceleration,
    CapturedUpdate,
    autocast_losses,
    compile_losses,
)
from common.training.engine import choose_acceleration, make_updates
from common.training.graphs import GraphUpdates
from common.training.updates import Updates
from tests.helpers.agents import CPU, FLAT, PARTICLES, make_hiql, make_sgiql
from tests.helpers.ecrl import make_td3, make_unbranched_td3
from tests.helpers.networks import randomise
from tests.helpers.updates import assert_same, make_buffer, make_draws, run
from tests.helpers.windows import make as make_ecdiffuser

CUDA = torch.device("cuda")


def settings(*overrides: str):
    return compose(["env_kwargs.manipobj.num_cubes=1", *overrides])


# --- switches -------------------------------------------------------------------------------------


def test_auto_is_off_on_cpu_and_on_for_cuda(monkeypatch) -> None:
    assert choose_acceleration(settings(), CPU) == EAGER
    monkeypatch.setattr("common.training.engine._missing_tool", lambda device: None)
    chosen = choose_acceleration(settings(), CUDA)
    assert chosen.compile and chosen.cudagraphs
    off = choose_acceleration(settings("compile=false", "cudagraphs=false"), CUDA)
    assert off == Acceleration(tf32=True)
    on_cpu = choose_acceleration(settings("compile=true"), CPU)
    assert on_cpu.compile and not on_cpu.cudagraphs and "takes long" in on_cpu.notes[0]


def test_what_is_not_possible_is_one_line(monkeypatch) -> None:
    agent, graphs = make_hiql(), settings("cudagraphs=true")
    with pytest.raises(UserError, match=r"^cudagraphs=true needs a CUDA device, .* is cpu; .*$"):
        make_updates(graphs, agent, make_buffer(FLAT), {})
    with pytest.raises(UserError, match=r"^tf32=true needs a CUDA device, .*; use tf32=auto or "):
        choose_acceleration(settings("tf32=true"), CPU)
    with pytest.raises(UserError, match="autocast=true is for CPU and CUDA"):
        choose_acceleration(settings("autocast=true"), torch.device("mps"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"^compile=true is not possible: .* C\+\+ compiler .*$"):
        choose_acceleration(settings("compile=true"), CPU)
    with pytest.raises(SettingError, match=r"compile=maybe is not true or false; .* auto"):
        settings("compile=maybe")


def test_auto_says_why_it_does_not_compile(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    chosen = choose_acceleration(settings(), CUDA)
    assert chosen.cudagraphs and not chosen.compile
    assert chosen.tf32 and not chosen.autocast
    assert chosen.notes == ("compile=auto: off, since the GPU is too old for it (6.1, not 7.0)",)


def test_a_run_may_go_on_with_other_switches() -> None:
    assert identity(settings("compile=true", "cudagraphs=false")) == identity(settings())


# --- compiled losses ------------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler(caplog: pytest.LogCaptureFixture):
    # pytest listens to every logger, and writing down its trace takes torch most of the time.
    caplog.set_level(logging.WARNING, logger="torch.__trace")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_compiled_losses_update_alike(fresh_compiler: None) -> None:
    """Bits agree, since this backend runs the graph's own operations, gradients included."""
    eager, compiled = make_hiql(), make_hiql()
    compile_losses(compiled, "aot_eager")
    draws = make_draws(make_buffer(FLAT))
    assert_same(run(Updates(compiled, draws, {}), range(1, 4)), run_eager(eager, draws, 3))
    assert_same(flatten(compiled.state_dict())[0], flatten(eager.state_dict())[0])
    with pytest.raises(RuntimeError, match="fail_on_recompile"):  # another size of batch
        run(Updates(compiled, make_draws(draws.buffer, 8), {}), range(4, 5))


def test_losses_on_entity_sets_are_one_graph_each(fresh_compiler: None) -> None:
    """Those of V, critics and diffuser, which have every kind of layer; more would take long."""
    eager, compiled = make_sgiql(), make_sgiql()
    compile_losses(compiled, "eager")
    batch, generator = make_draws(make_buffer())(1)
    noise = eager.draw_noise(batch, generator)
    assert torch.equal(compiled.critic_loss(batch)[0], eager.critic_loss(batch)[0])
    expected = eager.subgoal_loss(batch, noise)[0]
    assert torch.equal(compiled.subgoal_loss(batch, noise)[0], expected)


def test_the_loss_on_windows_is_one_graph(fresh_compiler: None) -> None:
    eager, compiled = make_ecdiffuser(), make_ecdiffuser()
    compile_losses(compiled, "eager")
    batch, generator = make_draws(make_buffer(), wants=eager.wants)(1)
    noise = eager.draw_noise(batch, generator)
    expected = eager.window_loss(batch, noise)[0]
    assert torch.equal(compiled.window_loss(batch, noise)[0], expected)


def test_losses_of_hidden_particles_are_one_graph_each(fresh_compiler: None) -> None:
    eager, compiled = (make_td3(PARTICLES, p_hindsight=1.0) for _ in range(2))
    compile_losses(compiled, "eager")
    batch, generator = make_draws(make_buffer(PARTICLES), wants=eager.wants)(1)
    noise = eager.draw_noise(batch, generator)
    assert torch.equal(compiled.critic_loss(batch, noise)[0], eager.critic_loss(batch, noise)[0])
    assert torch.equal(compiled.policy_loss(batch)[0], eager.policy_loss(batch)[0])


def run_eager(agent, draws: Draws, steps: int) -> dict[str, torch.Tensor]:
    return run(Updates(agent, draws, {}), range(1, steps + 1))


# --- bfloat16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_sgiql, make_hiql])
def test_losses_in_bfloat16_are_near_those_in_float32(make) -> None:
    """Losses and gradients; what is stored, and what V, Q and policy say, stays float32."""
    exact, rounded = make(), make()
    for agent in (exact, rounded):
        for learner in agent.learners.values():
            randomise(learner.module)
    for one, two in zip(exact.learners.values(), rounded.learners.values(), strict=True):
        two.flat.data.copy_(one.flat.data)
    autocast_losses(rounded)
    assert choose_acceleration(settings("autocast=true"), CPU).autocast
    batch, generator = make_draws(make_buffer(exact.context.spec))(1)
    noise = exact.draw_noise(batch, generator)
    one, two = exact.update(batch, noise), rounded.update(batch, noise)
    for name in one:
        assert two[name].dtype == torch.float32
        assert torch.allclose(one[name], two[name], rtol=0.05, atol=0.05), name
    assert any(not torch.equal(one[name], two[name]) for name in one)
    for learner in rounded.learners.values():
        assert learner.flat.dtype == learner.flat.grad.dtype == torch.float32


class Breaking:
    """Has a loss whose graph would break."""

    losses = ("value_loss",)

    def value_loss(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x.sum()


def test_a_graph_break_is_an_error(fresh_compiler: None) -> None:
    agent = Breaking()
    compile_losses(agent, "eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        agent.value_loss(torch.ones(3))


# --- captured updates -----------------------------------------------------------------------------


class Recorder(TorchDispatchMode):
    """A CUDA graph played on the CPU: repeats operations on the same memory, and no Python.

    Refuses operations that read a number back, as capturing does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.replays, self.generators = [], 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in ("_local_scalar_dense", "nonzero"), func
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Replays draw from the generators themselves, recording leaves them as they are."""
        self.generators.append(generator)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


@pytest.fixture
def no_gpu(monkeypatch) -> list[Recorder]:
    """Lets capturing happen on the CPU; returns the graphs that are made."""
    graphs = []

    class Stream:
        device = CPU

        def wait_stream(self, other) -> None:
            pass

    def make_graph() -> Recorder:
        graphs.append(Recorder())
        return graphs[-1]

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", make_graph)
    return graphs


@contextlib.contextmanager
def capturing(agent, graph: Recorder, sums: dict[str, torch.Tensor]):
    """Records without a trace: on a GPU, what is captured is not computed."""
    rates = [learner.adam.param_groups[0]["lr"] for learner in agent.learners.values()]
    tensors = [*flatten(agent.state_dict())[0].values(), *sums.values()]
    tensors += map(torch.as_tensor, rates)
    before = [tensor.clone() for tensor in tensors]
    states = [generator.get_state() for generator in graph.generators]
    with graph:
        yield
    for generator, state in zip(graph.generators, states, strict=True):
        generator.set_state(state)
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(old)


def rate_on_device(agent) -> None:
    """Let learners keep their rate as those on CUDA do."""
    for learner in agent.learners.values():
        learner.adam.param_groups[0]["lr"] = torch.tensor(learner.lr)


@pytest.mark.parametrize("make", [make_sgiql, make_hiql, make_ecdiffuser, make_unbranched_td3])
def test_replayed_updates_go_on_as_eager_ones(make, no_gpu: list[Recorder], monkeypatch) -> None:
    """Batch, noise, falling learning rate, Adam's count: nothing may be frozen in the graph.

    Nor the places at which an average of weights begins and goes on, or a policy is updated.
    """
    eager, captured = make(), make()
    for agent in (eager, captured):
        rate_on_device(agent)
    draws = make_draws(make_buffer(eager.context.spec), wants=eager.wants)
    expected = run_eager(eager, draws, WARM_UP + 4)
    assert_same(run_captured(captured, draws, WARM_UP + 4, monkeypatch), expected)
    assert_same(flatten(captured.state_dict())[0], flatten(eager.state_dict())[0])
    assert [graph.replays for graph in no_gpu] == [4]


def play_captures(agent, monkeypatch, sums: dict[str, torch.Tensor]) -> None:
    """Let what is captured leave no trace in an agent and in running sums."""
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **how: capturing(agent, graph, sums))


def test_graphs_of_several_updates_draw_what_single_ones_draw(no_gpu, monkeypatch) -> None:
    """Batches, noise and sums, over a reset and with an update left over at the end."""
    eager, captured = make_sgiql(), make_sgiql()
    for agent in (eager, captured):
        rate_on_device(agent)
    draws, sums = make_draws(make_buffer()), {}
    plain = Updates(eager, draws, {})
    updates = GraphUpdates(captured, draws, sums, EAGER, count=2)
    steps = range(1, WARM_UP + 6)  # one by one, two graphs of two, one that is left over
    play_captures(captured, monkeypatch, sums)
    first, rest = steps[: WARM_UP + 1], steps[WARM_UP + 1 :]
    assert_same(run(updates, first), run(plain, first))
    plain.reset()
    updates.reset()
    assert_same(run(updates, rest), run(plain, rest))
    assert_same(flatten(captured.state_dict())[0], flatten(eager.state_dict())[0])
    assert [graph.replays for graph in no_gpu] == [2]


def test_graphs_of_several_updates_need_a_gpu_and_the_data_on_it() -> None:
    agent, buffer = make_hiql(), make_buffer(FLAT)
    with pytest.raises(UserError, match=r"^updates_per_graph=4 needs CUDA graphs, .* use .*=1$"):
        make_updates(settings("updates_per_graph=4"), agent, buffer, {})
    elsewhere = replace(agent.context, device=CUDA)
    agent.context = elsewhere
    with pytest.raises(UserError, match=r"needs the training data on the GPU, .* use data_device"):
        make_updates(settings("updates_per_graph=4", "compile=false"), agent, buffer, {})


def run_captured(agent, draws: Draws, steps: int, monkeypatch) -> dict[str, torch.Tensor]:
    play_captures(agent, monkeypatch, {})
    updates = Updates(agent, draws, {}, Acceleration(cudagraphs=True))
    return run(updates, range(1, steps + 1))


def test_a_rate_on_the_host_could_not_be_captured(no_gpu: list[Recorder], monkeypatch) -> None:
    """So the test above can fail."""
    draws = make_draws(make_buffer(FLAT))
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        run_captured(make_hiql(), draws, WARM_UP + 1, monkeypatch)


def test_a_rate_on_the_device_is_that_on_the_host() -> None:
    host, device = make_hiql(), make_hiql()
    rate_on_device(device)
    draws = make_draws(make_buffer(FLAT))
    for agent in (host, device):
        run_eager(agent, draws, 5)
    for one, two in zip(host.learners.values(), device.learners.values(), strict=True):
        rates = [float(learner.adam.param_groups[0]["lr"]) for learner in (one, two)]
        assert rates[0] == pytest.approx(1e-3 / (1 + 4 / 100) ** 0.5)
        assert rates[1] == pytest.approx(rates[0], rel=1e-6)
        assert torch.allclose(one.flat, two.flat, atol=1e-6)


def test_a_failed_capture_names_the_switch(no_gpu: list[Recorder], monkeypatch) -> None:
    def refuse(graph, **how):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    agent, (batch, generator) = make_hiql(), make_draws(make_buffer(FLAT))(1)
    update, noise = CapturedUpdate(agent), agent.draw_noise(batch, generator)
    for _ in range(WARM_UP):
        update(batch, noise)
    with pytest.raises(UserError, match=r"\(operation not permitted\); use .*cudagraphs=false$"):
        update(batch, noise)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_captured_updates_agree_with_eager_ones(compiled: bool) -> None:
    """Up to the rounding of other kernels."""
    eager, faster = make_sgiql(device=CUDA), make_sgiql(device=CUDA)
    draws = make_draws(make_buffer(device=CUDA))
    expected = run_eager(eager, draws, WARM_UP + 4)
    both = Acceleration(compile=compiled, cudagraphs=True)
    sums = run(Updates(faster, draws, {}, both), range(1, WARM_UP + 5))
    for name, total in expected.items():
        assert torch.allclose(sums[name], total, rtol=1e-3, atol=1e-4), name
    for name, learner in eager.learners.items():
        assert torch.allclose(learner.flat, faster.learners[name].flat, atol=1e-3), name
