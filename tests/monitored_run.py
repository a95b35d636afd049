"""What a training step would report to the monitor, made up of random numbers, for tests."""

from pathlib import Path

import torch

from primus_scale.config import Config
from primus_scale.config_file import apply_overrides, parse_config
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor.figures import StepReport
from primus_scale.sample import Batch
from primus_scale.support import Neighbours

BATCH, NEIGHBOURS, WIDTH, SAMPLES, RATE_HZ = 8, 3, 16, 50, 50.0


def make_config(output: Path, *overrides: str) -> Config:
    """A run of 40 steps that logs every tenth."""
    tree = {
        "name": "monitored",
        "output": str(output),
        "data": {"train": ["unused"]},
        "train": {"batch": BATCH, "steps": 40},
    }
    return apply_overrides(parse_config(Config, tree, source="test"), overrides)


def make_views(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """View 0 and view 1, ``(BATCH, 6, SAMPLES)``."""
    generator = torch.Generator().manual_seed(seed)
    view = torch.randn(BATCH, 6, SAMPLES, generator=generator)
    return view, -view


def make_report(
    loss: float,
    *,
    waited_s: float = 0.0,
    seed: int = 0,
    skipped_steps: int = 0,
    neighbour_rows: int = 0,
) -> StepReport:
    """The report of a step with this loss. The last row of the batch has no video.

    neighbour_rows: pairs behind the neighbour term, which is 0 without any.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    teachers = {"video": random(BATCH, WIDTH), "text": random(BATCH, WIDTH)}
    with_video = torch.arange(BATCH) < BATCH - 1
    embeddings = [
        Embeddings(random(BATCH, WIDTH), random(BATCH, WIDTH), teachers) for _ in range(2)
    ]
    place = (BATCH, NEIGHBOURS)
    return StepReport(
        total=torch.tensor(2 * loss),
        terms={
            "imu_video": torch.tensor(loss),
            "imu_imu": torch.tensor(loss),
            "neighbour_imu": torch.tensor(loss if neighbour_rows else 0.0),
        },
        rows={
            "imu_video": torch.tensor(BATCH - 1),
            "imu_imu": torch.tensor(BATCH),
            "neighbour_imu": torch.tensor(neighbour_rows),
        },
        temperatures={"mm": torch.tensor(0.1), "ss": torch.tensor(0.2)},
        grad_norm=1.5,
        lr=1e-3,
        batch=Batch(
            imu=make_views(seed)[0],
            uid=torch.arange(BATCH),
            recording=torch.arange(BATCH) // 2,
            session=torch.arange(BATCH) // 4,
            label=torch.full((BATCH,), -1),
            embeddings=teachers,
            present={"video": with_video, "text": torch.zeros(BATCH, dtype=torch.bool)},
            start_s=2.5 * (torch.arange(BATCH) % 2),
            span_s=4.98,
        ),
        views=(embeddings[0], embeddings[1]),
        neighbours=Neighbours(
            uid=torch.randint(0, 9, place, generator=generator),
            recording=torch.randint(0, 4, place, generator=generator),
            session=torch.zeros(place, dtype=torch.int64),
            age=torch.randint(0, 100, place, generator=generator),
            score=random(*place),
            valid=torch.rand(*place, generator=generator) < 0.6,
            embeddings={},
            present={},
            start_s=2.5 * torch.randint(0, 4, place, generator=generator),
        ),
        support={"fill": 123},
        waited_s=waited_s,
        retries=0,
        skipped_steps=skipped_steps,
    )
