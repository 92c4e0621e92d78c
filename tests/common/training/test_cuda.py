"""On a CUDA device: captured and compiled updates against eager ones, and the same bits again.

`bash commands/test.sh tests/common/training/test_cuda.py`; skipped where there is none.
"""

from pathlib import Path

import pytest
import torch

import train
from common.evaluation import evaluate as evaluation_run
from common.runs import checkpoint
from common.runs.folders import run_path
from common.settings.config import compose
from tests.conftest import TINY
from tests.helpers.training import result

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PLAIN = ("compile=false", "cudagraphs=false", "tf32=false")
RHYTHM = ("device=cuda", "steps=24", "log_freq=8", "checkpoint_freq=12", "eval_freq=100")
AGENTS = {
    "EC-SGIQL": ("agent=sgiql",),
    "EC-SGIQL AWR": ("agent=sgiql", "sgiql.subgoal_policy_type=standard"),
    "EC-IQL": ("agent=iql",),
    "HIQL": ("agent=hiql", "obs=state", "hiql.subgoal_k=5"),
    "EC-Diffuser": ("agent=ecdiffuser", "ecdiffuser.batch_size=null"),
}


@pytest.fixture
def trained(tiny_data, tmp_path, monkeypatch):
    """Trains with these settings, on real episodes with their rewards; returns the tensors.

    Without evaluations, which take most of the time of so few updates.
    """
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **options: result(0))

    def run(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        base = [*TINY, *RHYTHM, f"data_dir={tiny_data}", f"output_dir={tmp_path / name}"]
        config = compose([*base, *overrides])
        assert train.run(config) is None
        return checkpoint.load(Path(run_path(config)) / "last.safetensors")[0]

    return run


def assert_near(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Parameters agree up to rounding, which 24 updates of Adam carry on."""
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, two[name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("agent", AGENTS)
def test_captured_updates_learn_what_eager_ones_do(agent: str, trained) -> None:
    """One update to a graph, and four with their batches and rewards."""
    eager = trained("eager", *AGENTS[agent], *PLAIN)
    alone = trained("graph", *AGENTS[agent], "compile=false", "tf32=false")
    assert_near(alone, eager)
    four = trained("graphs", *AGENTS[agent], "compile=false", "tf32=false", "updates_per_graph=4")
    assert_near(four, eager)


@pytest.mark.parametrize("agent", ["EC-SGIQL", "HIQL"])
def test_compiled_and_captured_updates_learn_what_eager_ones_do(agent: str, trained) -> None:
    eager = trained("eager", *AGENTS[agent], *PLAIN)
    assert_near(trained("compiled", *AGENTS[agent], "tf32=false", "updates_per_graph=4"), eager)


def test_a_stopped_run_ends_with_the_same_bits(trained) -> None:
    """With deterministic algorithms, and graphs that are captured anew after the stop."""
    exact = *AGENTS["EC-SGIQL"], "deterministic=true", "compile=false", "updates_per_graph=4"
    whole = trained("whole", *exact)
    trained("parts", *exact, "steps=12")
    again = trained("parts", *exact)
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_data_in_main_memory_give_the_same_bits_each_time(trained) -> None:
    """Batches are fetched ahead, beside the GPU's work."""
    there = *AGENTS["EC-IQL"], "deterministic=true", "compile=false", "data_device=cpu"
    one, two = trained("one", *there), trained("two", *there)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
