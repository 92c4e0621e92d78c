"""The processes that train one agent or encoder together, through torch's distributed engine.

One process unless the script was started by `torchrun`, `accelerate launch` or a launcher's job of
several tasks; each then computes its share of every batch, and gradients are averaged. Where no
process draws numbers of its own, the number of processes changes rounding only.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as engine
from torch import Tensor, nn

from common.foundation.device import resolve_device, set_deterministic, set_threads
from common.foundation.errors import UserError
from common.foundation.processes import available_cores
from common.settings.config import Config

# How long processes wait for each other: for one that evaluates, or converts a dataset. One that
# ends is noticed at once, by its connections and by whoever started it.
PATIENCE = timedelta(days=7)
PEER_ENDED = ("closed by peer", "reset by peer")  # what gloo says of a process that is gone


class Team:
    """One process, which computes whole batches; `Peers` are several.

    Attributes:
        rank: of this process, 0 the one that writes files. size: number of processes.
        device: of this process.
    """

    rank, size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The part of a batch that is this process's."""
        return slice(self.rank, None, self.size)

    def check_seed(self, seed: int) -> None:
        """Raise `UserError` if the processes do not have the same seed; all must call it."""
        if not self.agreed(seed):
            raise UserError("seed=random gives each process another seed; set seed to a number")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over processes in the backward pass."""
        return model

    def average(self, x: Tensor) -> Tensor:
        """The mean of the processes' tensors; all must call it, and all get it."""
        return x

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`average` of several tensors, by name."""
        return {name: self.average(value) for name, value in values.items()}

    def largest(self, number: int) -> int:
        """The largest number of any process; all must ask."""
        return number

    def any(self, flag: bool) -> bool:
        """True if the flag is set in any process; all must ask."""
        return self.largest(int(flag)) > 0

    def agreed(self, number: int) -> bool:
        """True if all processes have the same number; all must ask."""
        return self.largest(number) == -self.largest(-number)

    def copy_from_main(self, x: Tensor) -> None:
        """Give all processes the main process's values of `x`; all must call it."""

    def wait(self) -> None:
        """Return when all processes have come here."""

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the main process do the block, then one of each other machine, then the rest.

        For what the first to come writes to a disk, which machines may share, and others then read.
        """
        yield

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Part, if nothing went wrong: otherwise the others do not come, and would be awaited."""


class Peers(Team):
    """This process and its peers; processes of a machine take one GPU each, or share the CPU.

    Args:
        device: of the settings.
    """

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator, InitProcessGroupKwargs

        chosen = resolve_device("auto" if device == "cuda" else device)
        if chosen.index is not None:
            raise UserError(
                f"device={device} names one GPU, and there are several processes; use device=cuda"
            )
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        self._accelerator = Accelerator(cpu=chosen.type == "cpu", kwargs_handlers=[patience])
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        super().__init__(self._accelerator.device)

    def wrap(self, model: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(model, device_placement=False)

    def average(self, x: Tensor) -> Tensor:
        total = x.clone()
        engine.all_reduce(total)
        return total / self.size

    def largest(self, number: int) -> int:
        own = torch.tensor(number, device=self.device)
        engine.all_reduce(own, engine.ReduceOp.MAX)
        return int(own)

    def copy_from_main(self, x: Tensor) -> None:
        engine.broadcast(x, src=0)

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        own = 0 if self.is_main else 1 if self._accelerator.is_local_main_process else 2
        for turn in range(3):
            if turn == own:
                yield
            self.wait()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._accelerator.end_training()
        elif isinstance(error, RuntimeError) and any(sign in str(error) for sign in PEER_ENDED):
            raise UserError(
                "another process of this training ended; see what it said. The same command "
                "continues from the last checkpoint"
            ) from error


def make_team(device: str, threads: int) -> Team:
    """The processes that this one was started with.

    Args:
        device: of the settings.
        threads: CPU threads of each process, 0 for its part of the machine's cores.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    team = Peers(device) if size > 1 else Team(resolve_device(device))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    set_threads(threads or max(1, available_cores() // here))
    return team


def check_shares(batch_size: int, key: str, processes: int) -> None:
    """Raise `UserError` if batches of that size (setting `key`) have no equal shares."""
    if batch_size % processes:
        raise UserError(
            f"{key}={batch_size} cannot be shared by {processes} processes; "
            "choose a multiple of their number"
        )


def train_together(config: Config, train: Callable[[Config, Team], int | None]) -> None:
    """Train as one of a team; a signal that stopped it ends the script.

    Args:
        train: takes settings and team; returns the signal that stopped it, if one did.
    """
    set_deterministic(config.deterministic)
    with make_team(config.device, config.threads) as team:
        stopped_by = train(config, team)
    if stopped_by is not None:
        raise SystemExit(128 + stopped_by)  # as shells say it, so that a script ends there too
