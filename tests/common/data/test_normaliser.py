"""The running normaliser: the reference's vectors, and one law for whole data and parts of them."""

import pytest
import torch

from common.data.normaliser import EPSILON, Normaliser
from tests.helpers.ecrl import golden

CPU = torch.device("cpu")


def test_three_updates_end_where_the_references_do() -> None:
    vectors = golden("normaliser")
    normaliser = Normaliser.start(4, CPU)
    for i in range(3):
        normaliser.merge(vectors[f"rows{i}"])
        assert torch.allclose(normaliser.mean, vectors[f"mean{i}"], rtol=1e-6, atol=1e-6)
        assert torch.allclose(normaliser.var, vectors[f"var{i}"], rtol=1e-5, atol=1e-8)
        assert normaliser.count.item() == pytest.approx(vectors[f"count{i}"].item(), rel=1e-6)
    out = normaliser(vectors["query"])
    # A column without spread is scaled by a thousand, and with it the rounding of its mean.
    scale = torch.sqrt(normaliser.var + EPSILON)
    assert torch.allclose(out * scale, vectors["out"] * scale, rtol=1e-6, atol=1e-7)
    assert torch.allclose(normaliser.inverse(out), vectors["back"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_parts_merge_to_the_statistics_of_the_whole(chunk: int) -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(90, 3, 5, generator=g) * torch.tensor([1.0, 10.0, 0.1, 0.0, 3.0]) + 4
    whole, parts = Normaliser.fit(rows), Normaliser.fit(rows[:20])
    parts.merge(rows[20:21], chunk)
    parts.merge(rows[21:], chunk)
    assert torch.allclose(parts.mean, whole.mean, rtol=1e-6)
    assert torch.allclose(parts.var, whole.var, rtol=1e-5, atol=1e-10)
    assert parts.count == whole.count == 270
    flat = rows.double().flatten(0, 1)
    assert torch.allclose(whole.mean.double(), flat.mean(dim=0), rtol=1e-6)
    assert torch.allclose(whole.var.double(), flat.var(dim=0, correction=0), rtol=1e-6, atol=1e-12)


def test_before_any_data_nothing_changes_and_the_state_makes_it_again() -> None:
    rows = torch.randn(6, 2, 3)
    normaliser = Normaliser.start(3, CPU)
    assert torch.allclose(normaliser(rows), rows, atol=1e-5)
    shared = normaliser.to(CPU)
    normaliser.merge(rows)
    assert torch.equal(shared.mean, normaliser.mean)
    again = Normaliser(**{name: x.clone() for name, x in normaliser.state.items()})
    for one in (normaliser, again):
        one.merge(rows * 2)
    assert torch.equal(again.var, normaliser.var) and again.count == normaliser.count
