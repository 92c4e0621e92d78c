"""Who computes the updates: one process, two side by side, or a team that shares each batch."""

import multiprocessing as mp
import os
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from agents.base import AgentContext, Metrics
from common.acceleration import (
    EAGER,
    WARM_UP,
    Acceleration,
    CapturedUpdate,
    aside,
    capture,
    choose_acceleration,
)
from common.buffer import Buffer
from common.checkpoint import flatten
from common.config import Config
from common.device import generator_seed, seeded_generator
from common.draws import Draws, FetchedDraws
from common.errors import UserError
from common.processes import signals_blocked
from common.team import Team

# The networks that the policies of an agent read and the critics' process updates.
JUDGES = ("value", "critic")
CPU = torch.device("cpu")

Sums = dict[str, Tensor]  # metric -> its sum over the updates since the last reset


def add(sums: Sums, metrics: Metrics) -> None:
    """Add the metrics of one update to the running sums, in place."""
    for name, value in metrics.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value.clone()


def make_updates(
    config: Config, agent: Any, buffer: Buffer, sums: Sums, team: Team | None = None
) -> "Updates":
    """The way to update that `parallel_update`, `compile` and `cudagraphs` ask for.

    `parallel_update=auto` takes two if it pays. A `team` of several processes shares each batch.
    Raises `UserError` for what cannot be had.
    """
    draws = Draws(buffer, agent.batch_size or config.batch_size, config.seed, agent.sampler)
    processes = team.size if team else 1
    device = agent.context.device
    acceleration = choose_acceleration(config, device, processes)
    for note in acceleration.notes if team is None or team.is_main else ():
        tqdm.write(note)
    fetched = buffer.obs.device.type != device.type
    if config.updates_per_graph > 1:
        if fetched:
            raise UserError(
                f"updates_per_graph={config.updates_per_graph} needs the training data on the "
                "GPU, and they are in main memory; use data_device=device or updates_per_graph=1"
            )
        return GraphUpdates(agent, draws, sums, acceleration, config.updates_per_graph)
    if fetched:
        draws = FetchedDraws(draws, device)
    threads = torch.get_num_threads()
    problem = _problem(config, agent, buffer, processes)
    if config.parallel_update == "always" and problem:
        raise UserError(f"parallel_update=always is not possible: {problem}; use auto or never")
    if processes > 1:
        return SharedUpdates(agent, draws, sums, acceleration, team)
    worthwhile = threads > 1 and not agent.context.networks.fills_threads
    wanted = {"always": True, "auto": worthwhile, "never": False}[config.parallel_update]
    if not wanted or problem:
        return Updates(agent, draws, sums, acceleration)
    return PipelinedUpdates(agent, draws, sums, max(1, threads // 2), acceleration)


def _problem(config: Config, agent: Any, buffer: Buffer, processes: int) -> str | None:
    """Why critics and policies cannot be updated in two processes, if they cannot."""
    if processes > 1:
        return f"{processes} processes share each batch already"
    if not agent.learners.keys() >= set(JUDGES):
        return f"agent={agent.name} has no critics"
    if agent.context.device.type != "cpu":
        return "the device is not the CPU"
    if config.arch_eit.dropout > 0:
        return "arch_eit.dropout draws its numbers in the order of one process"
    if os.path.isdir("/dev/shm"):
        disk = os.statvfs("/dev/shm")
        if disk.f_bavail * disk.f_frsize < 1.2 * buffer.bytes:
            return f"shared memory (/dev/shm) has no room for {buffer.bytes / 2**20:.0f} MiB"
    return None


class Updates:
    """All of an update in this process."""

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration = EAGER
    ) -> None:
        self.agent, self.draws = agent, draws
        self._sums = sums
        acceleration.apply(agent)
        self._update = CapturedUpdate(agent) if acceleration.cudagraphs else agent.update

    def run(self, step: int) -> None:
        """Update `step`, counted from 1."""
        batch, generator = self.draws(step)
        add(self._sums, self._update(batch, self.agent.draw_noise(batch, generator)))

    def sums(self) -> Sums:
        """Sums of the metrics since `reset`; all updates asked for are then complete."""
        return dict(self._sums)

    def reset(self) -> None:
        """Start the sums anew."""
        self._sums.clear()

    def close(self) -> None:
        """Let go of other processes, if any."""


class SharedUpdates(Updates):
    """All of an update on this process's share of its batch, with gradients averaged over a team.

    All processes draw the whole batch, which costs little, and keep their share of it. So together
    they compute what one process does, but for the order of sums and the draws of dropout.
    """

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration, team: Team
    ) -> None:
        super().__init__(agent, draws, sums, acceleration)
        self.team = team
        learned, _ = flatten(agent.state_dict())
        for tensor in learned.values():
            team.copy_from_main(tensor)

    def run(self, step: int) -> None:
        batch, generator = self.draws(step)
        noise = self.agent.draw_noise(batch, generator)
        share = self.team.share
        batch = type(batch)(*(x[share] for x in vars(batch).values()))
        # Dropout draws from torch's own generator.
        seed = seeded_generator(CPU, self.draws.seed, step, self.team.rank).initial_seed()
        torch.manual_seed(seed)
        metrics = self._update(batch, tuple(x[share] for x in noise))
        means = self.team.average(torch.stack(list(metrics.values())))
        add(self._sums, dict(zip(metrics, means.unbind(), strict=True)))


class GraphUpdates(Updates):
    """Several updates, their batches included, as one CUDA graph; for data on the GPU.

    `run` gathers updates until there are `count`, which one launch then computes; `sums` computes
    what is left of them one by one. The first ones run as they are, see `CapturedUpdate`. Draws
    are those of `Updates`: each update of the graph has a generator, seeded for it before a replay.
    """

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration, count: int
    ) -> None:
        super().__init__(agent, draws, sums, replace(acceleration, cudagraphs=False))
        device = agent.context.device
        self._stream = torch.cuda.Stream(device)
        self._generators = [torch.Generator(device) for _ in range(count)]
        self._waiting: list[int] = []  # updates asked for and not computed yet
        self._done = 0  # updates without a graph
        self._graph: Any = None

    def run(self, step: int) -> None:
        self._waiting.append(step)
        if self._done < WARM_UP:
            self._finish()
        elif len(self._waiting) == len(self._generators):
            self._replay()

    def sums(self) -> Sums:
        self._finish()
        return super().sums()

    def reset(self) -> None:
        """Start the sums anew, in place: the graph adds to them where they are."""
        self._finish()
        for total in self._sums.values():
            total.zero_()

    def _finish(self) -> None:
        for step in self._waiting:
            aside(self._stream, partial(super().run, step))
            self._done += 1
        self._waiting.clear()

    def _replay(self) -> None:
        for generator, step in zip(self._generators, self._waiting, strict=True):
            generator.manual_seed(generator_seed(self.draws.seed, step))
        if self._graph is None:
            self._graph, _ = capture(self._stream, self._compute, self._generators)
        self._graph.replay()
        self._waiting.clear()

    def _compute(self) -> None:
        for generator in self._generators:
            batch = self.draws.sample(generator)
            add(self._sums, self.agent.update(batch, self.agent.draw_noise(batch, generator)))


class PipelinedUpdates(Updates):
    """Critics here, policies in a second process, one update behind.

        this process   critics 1 | critics 2  | critics 3  | ...
        the other                | policies 1 | policies 2 | ...

    The policies of update k see V and the critics as update k left them: the other process copies
    them before this one goes on. What the policies learn lies in shared memory, so that this
    process can evaluate and store the agent once `sums` has made sure that no update is under way.
    Each process compiles the losses that it computes, if they are to be compiled. CPU only.
    """

    def __init__(
        self,
        agent: Any,
        draws: Draws,
        sums: Sums,
        threads: int,
        acceleration: Acceleration = EAGER,
    ) -> None:
        super().__init__(agent, draws, sums, acceleration)
        torch.set_num_threads(threads)
        shared = {name: learner.share() for name, learner in agent.learners.items()}
        context = mp.get_context("spawn")
        self._pipe, end = context.Pipe()
        policies = {k: v for k, v in sums.items() if k.split("/")[0] not in JUDGES}
        for name in policies:
            del sums[name]
        arguments = (end, type(agent), agent.settings, agent.context, shared, draws, policies)
        self._process = context.Process(
            target=_policy_process, args=(*arguments, threads, acceleration), daemon=True
        )
        with signals_blocked():
            self._process.start()
        end.close()
        self._ask(None)  # wait until it is ready

    def run(self, step: int) -> None:
        batch, _ = self.draws(step)
        add(self._sums, self.agent.update_critics(batch))
        self._ask(step)  # it answers as soon as it has copied them

    def sums(self) -> Sums:
        return self._sums | self._ask("sums")

    def reset(self) -> None:
        super().reset()
        self._ask("reset")

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _ask(self, request: Any) -> Any:
        try:
            if request is not None:
                self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(
                f"the process that updates the policies ended (exit code {code}); its message "
                "stands above. The same command continues from the last checkpoint"
            ) from error


def _policy_process(
    pipe: Connection,
    Agent: type,
    settings: Any,
    context: AgentContext,
    shared: dict[str, dict[str, Tensor]],
    draws: Draws,
    sums: Sums,
    threads: int,
    acceleration: Acceleration,
) -> None:
    """Serve update after update until the other end of the pipe closes."""
    torch.set_num_threads(threads)
    agent = Agent(settings, context)
    acceleration.apply(agent)
    copies = {name: agent.learners[name].flat.data for name in JUDGES}  # they stay private
    for name, learner in agent.learners.items():
        if name not in JUDGES:
            learner.adopt(shared[name])
    pipe.send(None)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        if request == "sums":
            pipe.send(sums)
        elif request == "reset":
            sums.clear()
            pipe.send(None)
        else:
            for name, copy in copies.items():
                copy.copy_(shared[name]["flat"])
            pipe.send(None)
            batch, generator = draws(request)
            add(sums, agent.update_policies(batch, agent.draw_noise(batch, generator)))
