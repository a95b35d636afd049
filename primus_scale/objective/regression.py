"""Regression onto a teacher's embedding: ``imu_signal`` with ``objective.signal.loss=regression``.

Let t_i be the teacher's embedding of window i, and p_vi the head's output for view v of it (of V
views), both of unit length. Let n be the number of windows of the global batch that have an
embedding. The loss is

    1/n * sum over i of 1/V * sum over v of ( 1 - p_vi . t_i ).

That is half the squared distance of unit vectors (as in BYOL, arXiv 2006.07733). It needs no other
window, so ranks need to know only how many rows count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from primus_scale.objective.contrast import TermLoss, share_of


def regression(
    predictions: Sequence[torch.Tensor],
    targets: torch.Tensor,
    valid: torch.Tensor,
    rows: torch.Tensor,
) -> TermLoss:
    """The loss of the module on a rank's rows: its share of the mean, see ``share_of``.

    predictions: of each view ``(B, D)``, of any norm. targets ``(B, D)``: L2-normalised. valid
    ``(B,)`` bool: rows that have a target. rows: 0-d, their number in the global batch. All
    arithmetic is in float32.
    """
    with torch.autocast(targets.device.type, enabled=False):
        units = [functional.normalize(each.float(), dim=1) for each in predictions]
        cosines = torch.stack([(each * targets.float()).sum(1) for each in units])
        losses = torch.where(valid, 1 - cosines.mean(0), 0.0)
    return share_of(losses.sum(), rows)
