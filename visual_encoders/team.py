"""The processes that train one encoder together, through Hugging Face Accelerate.

One process unless the script was started by `accelerate launch` or `torchrun`; each then reads its
share of every batch, and gradients are averaged. For losses without random draws the number of
processes changes rounding only; each process draws its own noise.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.device import resolve_device, set_threads
from common.errors import UserError
from common.processes import available_cores


class Team:
    """This process and its peers.

    Attributes:
        rank: of this process, 0 the one that writes files. size: number of processes.
        device: of this process.

    Args:
        device: of the settings; several processes take one GPU each, or share the CPU.
        threads: CPU threads of each process, 0 for its part of the cores.
    """

    def __init__(self, device: str, threads: int) -> None:
        from accelerate import Accelerator

        several = int(os.environ.get("WORLD_SIZE", 1)) > 1
        chosen = resolve_device("auto" if several and device == "cuda" else device)
        if several and chosen.index is not None:
            raise UserError(
                f"device={device} names one GPU, and there are several processes; use device=cuda"
            )
        self._accelerator = Accelerator(cpu=chosen.type == "cpu")
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device if several else chosen
        set_threads(threads or max(1, available_cores() // self.size))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over processes in `backward`."""
        return self._accelerator.prepare_model(model, device_placement=False)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss that is a mean over this process's share."""
        self._accelerator.backward(loss)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over the processes; all must call it, and all get them."""
        return self._accelerator.reduce(dict(values), "mean")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask."""
        if self.size == 1:
            return flag
        own = torch.tensor(float(flag), device=self.device)
        return bool(self._accelerator.reduce(own, "sum"))

    def agreed(self, number: int) -> bool:
        """Whether all processes have the same number; all must ask."""
        numbers = self._accelerator.gather(torch.tensor([number], device=self.device))
        return bool((numbers == number).all())

    def wait(self) -> None:
        """Return when all processes have come here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Part; the last call."""
        self._accelerator.end_training()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None:  # otherwise the peers do not come, and waiting for them never ends
            self.close()
