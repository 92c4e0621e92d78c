"""The codebook: every latent vector is replaced by its nearest code (spec: encoders 7.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMMITMENT = 0.25  # weight of pulling latents towards their codes


@dataclass(frozen=True)
class Codes:
    """A quantised latent.

    Attributes:
        latent: (B, E, h, w) the codes, with the gradient of what was quantised (straight-through).
        indices: (B, h, w) int64, which code.
        loss: scalar, 0.25 mean (stop(e) - z)^2 + mean (e - stop(z))^2.
    """

    latent: Tensor
    indices: Tensor
    loss: Tensor


class Quantiser(nn.Module):
    """N codes of E numbers, trained by gradients: no moving averages, no restarts.

    How many codes are in use is not regulated, so the trainer logs it.
    """

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        book = torch.empty(codes, size).uniform_(-1.0 / codes, 1.0 / codes)
        self.embedding = nn.ParameterDict({"weight": book})

    @property
    def book(self) -> Tensor:
        """The codes, (N, E)."""
        return self.embedding["weight"]

    def forward(self, z: Tensor) -> Codes:
        """Quantise z (B, E, h, w)."""
        rows = z.movedim(1, -1)  # (B, h, w, E)
        indices = self.nearest(rows)
        code = F.embedding(indices, self.book)
        pull = F.mse_loss(rows, code.detach())
        loss = COMMITMENT * pull + F.mse_loss(code, rows.detach())
        latent = rows + (code - rows).detach()
        return Codes(latent.movedim(-1, 1), indices, loss)

    @torch.no_grad()
    def nearest(self, rows: Tensor) -> Tensor:
        """Index of the nearest code in squared distance of each row: (..., E) -> (...)."""
        distance = rows.square().sum(-1, keepdim=True) + self.book.square().sum(-1)
        return (distance - 2 * rows @ self.book.T).argmin(-1)
