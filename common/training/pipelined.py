"""Critics and policies in two processes side by side."""

import multiprocessing as mp
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from agents.base import AgentContext
from common.data.draws import Draws
from common.foundation.processes import signals_blocked
from common.training.acceleration import EAGER, Acceleration
from common.training.updates import Sums, Updates, add


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
        policies = {k: v for k, v in sums.items() if k.split("/")[0] not in agent.judges}
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
    copies = {name: agent.learners[name].flat.data for name in agent.judges}  # they stay private
    for name, learner in agent.learners.items():
        if name not in agent.judges:
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
