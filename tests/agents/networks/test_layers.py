"""Layers: what acting in any company rests on."""

import pytest
import torch

from agents.networks.layers import Linear


@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 6, 7, 9, 10, 11, 14, 15, 21])
@pytest.mark.parametrize("fan_in", [8, 256])
def test_without_gradient_a_rows_result_does_not_depend_on_its_place(outputs, fan_in) -> None:
    torch.manual_seed(0)
    layer = Linear(1, fan_in, outputs)
    rows = torch.randn(fan_in).expand(1, 3, 32, fan_in)
    with torch.no_grad():
        out = layer(rows)
    assert (out == out[:, :1, :1]).all()
    assert torch.allclose(out, layer(rows), rtol=1e-4, atol=1e-5)
