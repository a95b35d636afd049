"""Losses and neighbours on CUDA memory equal those on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from primus_scale.config import ObjectiveConfig, TemperatureConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.model import Temperatures
from primus_scale.objective.neighbours import find_neighbours, support_entries
from primus_scale.objective.terms import temperature_configs
from primus_scale.sample import Batch
from primus_scale.support import RingSupportSet, SupportSpec

pytestmark = pytest.mark.gpu

ROWS = 96
DIMS = {"imu": 64, "video": 128, "text": 48}
TEACHERS = {"video": 128, "text": 48, "signal": 96}
NEIGHBOURS = {"k": 2, "combine": "each"}
CONFIGS = {
    "paper": {"neighbours": NEIGHBOURS},
    "signal by regression": {"neighbours": NEIGHBOURS, "weights": {"imu_signal": 1.0}},
    "signal by contrast": {
        "neighbours": NEIGHBOURS,
        "weights": {"imu_signal": 1.0},
        "signal": {"loss": "contrastive"},
    },
    "near in time": {
        "neighbours": NEIGHBOURS,
        "weights": {"imu_near": 1.0},
        "near": {"min_s": 1.0, "max_s": 2.0, "exclude_s": 3.0, "global_negatives": 0.3},
    },
}


def make_batch(seed: int) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    present = {name: torch.rand(ROWS, generator=draws) < 0.7 for name in TEACHERS}
    vectors = {name: torch.randn(ROWS, dim, generator=draws) for name, dim in TEACHERS.items()}
    numbers = torch.arange(ROWS) + seed * ROWS // 2  # half of the windows come again
    return Batch(
        torch.zeros(ROWS, 6, 8),
        numbers,
        numbers // 7,
        numbers // 14,
        numbers,
        {name: functional.normalize(rows, dim=1) for name, rows in vectors.items()},
        present,
        start_s=(numbers % 7).double(),
        span_s=1.5,
    )


def make_view(seed: int, device: str) -> Embeddings:
    draws = torch.Generator().manual_seed(seed)

    def leaf(dim: int) -> torch.Tensor:
        return torch.randn(ROWS, dim, generator=draws).to(device).requires_grad_()

    teachers = {name: leaf(dim) for name, dim in TEACHERS.items()}
    return Embeddings(leaf(8), leaf(64), teachers, near=leaf(32))


def run_steps(device: str, config: ObjectiveConfig) -> dict[str, torch.Tensor]:
    """Four batches through neighbours, loss and ring; everything of the last one."""
    temperatures = Temperatures(temperature_configs(config)).to(device)
    support = RingSupportSet(SupportSpec(200, DIMS, minimum_fill=50), device)
    for seed in range(4):
        batch = make_batch(seed).to(device)
        view0, view1 = make_view(seed + 10, device), make_view(seed + 20, device)
        neighbours = find_neighbours(view0, batch, support, config.neighbours)
        temperatures.zero_grad()
        loss = primus_loss(view0, view1, temperatures(), batch, neighbours, config)
        loss.total.backward()
        support.enqueue(support_entries(view0, batch))
    assert neighbours.valid.any() and neighbours.uid.device.type == device
    return {
        "total": loss.total.detach(),
        "neighbours.uid": neighbours.uid * neighbours.valid,
        "neighbours.age": neighbours.age * neighbours.valid,
        "neighbours.score": neighbours.score * neighbours.valid,
        "temperatures": temperatures.value.grad,
        "ss": view0.ss.grad,
        "view1": view1.ss.grad,
        **({} if view1.near.grad is None else {"near": view1.near.grad}),
        **{f"mm.{name}": rows.grad for name, rows in view0.mm.items() if rows.grad is not None},
        **{f"ring.{name}": held for name, held in support.state_dict().items()},
    }


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_steps_on_cuda_equal_the_cpu(changes):
    config = ObjectiveConfig.model_validate(changes)
    on_cpu, on_cuda = run_steps("cpu", config), run_steps("cuda", config)
    further = changes.get("weights", {})
    assert ("mm.signal" in on_cpu) == ("imu_signal" in further)
    assert ("near" in on_cpu) == ("imu_near" in further)
    for name, expected in on_cpu.items():
        torch.testing.assert_close(on_cuda[name].cpu(), expected, rtol=1e-4, atol=1e-5)


def test_loss_stays_float32_under_autocast_on_cuda():
    batch, views = make_batch(0).to("cuda"), (make_view(1, "cuda"), make_view(2, "cuda"))
    config = ObjectiveConfig.model_validate(
        {"weights": dict.fromkeys(("neighbour_video", "neighbour_text", "neighbour_imu"), 0.0)}
    )
    temperatures = Temperatures(dict.fromkeys(("mm", "ss"), TemperatureConfig(initial=0.02))).cuda()
    plain = primus_loss(*views, temperatures(), batch, None, config).total
    with torch.autocast("cuda", dtype=torch.bfloat16):
        mixed = primus_loss(*views, temperatures(), batch, None, config).total
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=1e-6, atol=1e-6)
