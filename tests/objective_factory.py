"""Small batches, views and objectives, for the tests of the objective."""

from __future__ import annotations

import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.terms import TERMS
from primus_scale.sample import Batch

DIMS = {"imu": 4, "video": 3, "text": 5}
TEACHERS = {"video": 3, "text": 5, "signal": 2}
NAMES = [term.name for term in TERMS]
TAU = {term.family: torch.tensor(0.1) for term in TERMS}


def weights(**chosen: float) -> ObjectiveConfig:
    """An objective of the chosen terms only."""
    return ObjectiveConfig.model_validate({"weights": {**dict.fromkeys(NAMES, 0.0), **chosen}})


def make_batch(rows: int = 6, video: list[int] | None = None) -> Batch:
    present = torch.tensor(video if video is not None else [1] * rows).bool()
    uid = torch.arange(rows)
    return Batch(
        imu=torch.randn(rows, 6, 8),
        uid=uid,
        recording=uid + 100,
        session=uid + 200,
        label=uid,
        embeddings={
            "video": torch.randn(rows, 3) * present[:, None],
            "text": torch.randn(rows, 5),
            "signal": torch.nn.functional.normalize(torch.randn(rows, 2), dim=1),
        },
        present={
            "video": present,
            **dict.fromkeys(("text", "signal"), torch.ones(rows, dtype=torch.bool)),
        },
    )


def make_view(rows: int = 6) -> Embeddings:
    return Embeddings(
        torch.randn(rows, 9),
        torch.randn(rows, 4, requires_grad=True),
        {m: torch.randn(rows, dim, requires_grad=True) for m, dim in TEACHERS.items()},
        torch.randn(rows, 7, requires_grad=True),
    )
