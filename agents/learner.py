"""One network with its optimiser, all its numbers in a few flat tensors."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def flatten_parameters(module: nn.Module, flat: Tensor | None = None) -> Tensor:
    """Move all parameters of `module` into one flat tensor, in place, and return it.

    Each parameter becomes a view of it, so that one operation clips, steps or averages them all.
    Given a `flat` tensor, the parameters take its place and values instead.
    """
    parameters = list(module.parameters())
    if flat is None:
        flat = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return flat


class Learner:
    """Adam on one network, its gradient clipped to `max_norm`.

    Args:
        module: the network, already on its device; its parameters become views of one tensor.
        lr: learning rate. max_norm: bound on the Euclidean norm of the network's gradient.
        decay_steps: K in the rate lr / sqrt(1 + k / K) of step k; 0 keeps it constant.
        average: gives the mean of a tensor over the processes that share each batch, if several do.
        fused: whether a step of Adam is one kernel; "auto": on CPU and CUDA.
        ema_decay: of an exponential moving average of the parameters; 0 takes none.

    Attributes:
        averaged: the network with averaged parameters; without an average `module` itself.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        max_norm: float,
        decay_steps: int = 0,
        average: Callable[[Tensor], Tensor] | None = None,
        fused: bool | str = "auto",
        ema_decay: float = 0.0,
    ) -> None:
        self.module, self.average = module, average
        self.lr, self.decay_steps = lr, decay_steps
        self.max_norm, self.ema_decay = max_norm, ema_decay
        self.flat = flatten_parameters(module).requires_grad_()
        self.flat.grad = torch.zeros_like(self.flat)
        sizes = [p.numel() for p in module.parameters()]
        for p, part in zip(module.parameters(), self.flat.grad.split(sizes), strict=True):
            p.grad = part.view_as(p)
        self.adam = self._make_adam(self.flat.device.type != "mps" if fused == "auto" else fused)
        self.moments = {  # set here and not by Adam's first step, so that they can be shared
            "step": torch.zeros((), device=self.flat.device),
            "exp_avg": torch.zeros_like(self.flat),
            "exp_avg_sq": torch.zeros_like(self.flat),
        }
        self.adam.state[self.flat] = self.moments
        self.averaged = copy.deepcopy(module).requires_grad_(False) if ema_decay else module
        self.averaged_flat = flatten_parameters(self.averaged) if ema_decay else None

    def step(self, loss: Tensor, due: Tensor | None = None) -> Tensor:
        """Minimise `loss` by one step; returns the gradient's norm before clipping, ().

        One that is not `due` () changes nothing, without a branch, so that it can be captured.
        """
        self.flat.grad.zero_()
        loss.backward()
        if self.average is not None:
            self.flat.grad.copy_(self.average(self.flat.grad))
        norm = torch.linalg.vector_norm(self.flat.grad)
        self.flat.grad.mul_((self.max_norm / (norm + 1e-6)).clamp(max=1.0))
        if self.decay_steps:
            self._set_rate()
        changing = () if due is None else self._changing()
        before = [tensor.clone() for tensor in changing]
        self.adam.step()
        if self.ema_decay:
            self._average()
        for tensor, old in zip(changing, before, strict=True):
            tensor.copy_(torch.where(due, tensor, old))
        return norm

    def _changing(self) -> list[Tensor]:
        """All that a step changes."""
        averaged = [self.averaged_flat] if self.ema_decay else []
        return [self.flat.detach(), *self.moments.values(), *averaged]

    def _average(self) -> None:
        """Average over about the last ninth of the updates, at most over 1 / (1 - ema_decay)."""
        share = (9 / (9 + self.moments["step"])).clamp(min=1 - self.ema_decay)
        self.averaged_flat.lerp_(self.flat.detach(), share)

    def _make_adam(self, fused: bool) -> torch.optim.Adam:
        """On CUDA without a number on the host: a captured graph would repeat it for ever."""
        device = self.flat.device
        cuda = device.type == "cuda"
        lr = torch.tensor(self.lr, device=device) if cuda else self.lr
        return torch.optim.Adam([self.flat], lr=lr, fused=fused, capturable=cuda)

    def _set_rate(self) -> None:
        """Give Adam the rate of the coming step, on the device where the rate is a tensor."""
        group, done = self.adam.param_groups[0], self.moments["step"]
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(self.lr * (1 + done / self.decay_steps).rsqrt())
        else:
            group["lr"] = self.lr / math.sqrt(1 + int(done) / self.decay_steps)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Parameters by name, their averages if there are, and Adam's moments over all of them."""
        state = {"module": self.module.state_dict(), "adam": dict(self.moments)}
        return state | ({"average": self.averaged.state_dict()} if self.ema_decay else {})

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore what `state_dict` returned, in place.

        Agents to take away (`common.runs.export`) have no moments; Adam then begins anew. So does
        an average that was not taken.
        """
        self.module.load_state_dict(state["module"])
        if self.ema_decay:
            self.averaged.load_state_dict(state.get("average", state["module"]))
        for name, moment in self.moments.items():
            moment.copy_(state["adam"][name] if "adam" in state else torch.zeros(()))

    def share(self) -> dict[str, Tensor]:
        """Move all that learning changes into memory that other processes map; returns it."""
        tensors = {"flat": self.flat.detach(), **self.moments}
        if self.ema_decay:
            tensors["average"] = self.averaged_flat
        return {name: tensor.share_memory_() for name, tensor in tensors.items()}

    def adopt(self, shared: dict[str, Tensor]) -> None:
        """Work on what another process shared."""
        self.flat.data = flatten_parameters(self.module, shared["flat"])
        if self.ema_decay:
            self.averaged_flat = flatten_parameters(self.averaged, shared["average"])
        self.moments.update({name: shared[name] for name in self.moments})
