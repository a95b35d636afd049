"""The figures (numbers by name) that are logged of a step, and the inputs of its pictures.

Names are ``group/name``, as TensorBoard shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from primus_scale.distributed.collectives import sum_over_ranks, world_size
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor import measures
from primus_scale.sample import Batch
from primus_scale.support import Exclusion, Neighbours


@dataclass(frozen=True)
class StepReport:
    """The results of a step on a rank, for the log. Tensors need no gradient.

    total, terms: the rank's share of the weighted loss and of each unweighted term; their mean
    over ranks is the loss on the global batch. rows: of ``LossOutput``; a term without rows is not
    logged. temperatures: by family of terms (``Term.family``).
    views: embeddings of view 0 and view 1 of the rank's rows. support: figures of the support set,
    by name. waited_s: seconds that this rank has waited for data since it started. retries:
    requests to its storage that were repeated so far. skipped_steps: steps that were skipped so
    far because their loss was not finite.
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]
    rows: Mapping[str, torch.Tensor]
    temperatures: Mapping[str, torch.Tensor]
    grad_norm: float
    lr: float
    batch: Batch
    views: tuple[Embeddings, Embeddings]
    neighbours: Neighbours | None
    support: Mapping[str, float]
    waited_s: float
    retries: int
    skipped_steps: int


def figures_of_all_ranks(
    report: StepReport, windows_per_s: float, waited_s: float
) -> dict[str, float]:
    """Figures of a step, averaged over the ranks; every rank calls it at the same time.

    windows_per_s: of all ranks. waited_s: of this rank; both since the last logged step.
    """
    figures: dict[str, torch.Tensor | float] = {
        "loss/total": report.total,
        **{f"loss/{name}": x for name, x in report.terms.items() if report.rows[name]},
        **_neighbour_figures(report),
        "speed/windows_per_s": windows_per_s,
        "speed/retries": float(report.retries),
        "speed/waited_s": waited_s,
    }
    return _mean_over_ranks(figures, report.batch.imu.device)


def _mean_over_ranks(
    figures: Mapping[str, torch.Tensor | float], device: torch.device
) -> dict[str, float]:
    stacked = torch.stack(
        [torch.as_tensor(x, dtype=torch.float64, device=device).detach() for x in figures.values()]
    )
    means = sum_over_ranks(stacked) / world_size()
    return dict(zip(figures, means.tolist(), strict=True))


def _neighbour_figures(report: StepReport) -> dict[str, torch.Tensor]:
    """Score, age (in entries added since), and shares of the own recording, session and moment.

    Means over the valid neighbours; 0 where there are none yet.
    """
    found = report.neighbours
    if found is None:
        return {}
    valid = found.valid
    same_recording = found.recording == report.batch.recording[:, None]
    same_session = found.session == report.batch.session[:, None]
    same_moment = Exclusion(report.batch.origin, report.batch.span_s).covers(found.origin)
    count = valid.sum().clamp(min=1)
    return {
        "neighbours/score": (found.score * valid).sum() / count,
        "neighbours/age": (found.age * valid).sum() / count,
        "neighbours/same_recording": (same_recording & valid).sum() / count,
        "neighbours/same_session": (same_session & valid).sum() / count,
        "neighbours/same_moment": (same_moment & valid).sum() / count,
        "neighbours/valid": valid.sum() / max(valid.numel(), 1),
    }


def figures_of_first_rank(report: StepReport) -> dict[str, float]:
    """Figures of a step that are the same on all ranks, or computed from rank 0's rows."""
    return {
        **{f"temperature/{name}": float(t) for name, t in report.temperatures.items()},
        "optimizer/grad_norm": report.grad_norm,
        "optimizer/lr": report.lr,
        "optimizer/skipped_steps": report.skipped_steps,
        **{f"support/{name}": value for name, value in report.support.items()},
        **_collapse_figures(report),
    }


def _collapse_figures(report: StepReport) -> dict[str, float]:
    """Alignment of the two views, uniformity and effective rank of view 0, on rank 0's rows.

    Empty where the embeddings are not finite: a singular value decomposition refuses NaN.
    """
    first, second = (view.ss.detach().float() for view in report.views)
    if len(first) < 2 or not (first.isfinite().all() and second.isfinite().all()):
        return {}
    return {
        "collapse/alignment": float(measures.alignment(first, second)),
        "collapse/uniformity": float(measures.uniformity(first)),
        "collapse/effective_rank": float(measures.effective_rank(first)),
    }


def similarity_pairs(report: StepReport) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The pairs of embeddings for similarity matrices: both views, and IMU with each teacher."""
    batch = report.batch
    first, second = report.views
    pairs = {"view0_view1": (first.ss, second.ss)}
    for modality, ours in first.mm.items():
        rows = batch.present[modality]
        if rows.any():
            pairs[f"imu_{modality}"] = (ours[rows], batch.embeddings[modality][rows])
    return pairs
