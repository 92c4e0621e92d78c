"""Counting bits of packed masks."""

import torch
from torch import Tensor

# Sums of neighbouring bits, in fields of 2, 4 and 8 bits of a 64-bit word.
_PAIRS, _NIBBLES, _BYTES = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F
_ADD_BYTES = 0x0101010101010101


def count_bits(masks: Tensor) -> Tensor:
    """Number of ones in the last axis: (..., M) uint8, M a multiple of 8 -> (...) int64.

    Eight bytes at a time and in place where it can be: several times faster on a CPU than looking
    up each byte in a table.
    """
    words = masks.contiguous().view(torch.int64)
    words = words - (words >> 1).bitwise_and_(_PAIRS)
    words = (words >> 2).bitwise_and_(_NIBBLES).add_(words & _NIBBLES)
    words = (words >> 4).add_(words).bitwise_and_(_BYTES)
    return words.mul_(_ADD_BYTES).bitwise_right_shift_(56).sum(dim=-1)
