"""The term ``imu_near``: contrast between windows of one session that are near or far in time.

The positives of a window are the windows of its session that start ``min_s`` to ``max_s`` from it,
on the clock of one recording. Its negatives are windows of its session that are not within
``exclude_s`` of it. So neither who the person is nor how the device sits tells them apart: only
what the person does now. With P_i the positives and N_i the negatives of window i in the global
batch, z its embedding of unit length and t the temperature, the loss is the mean over the windows
that have both of

    1/|P_i| * sum over p in P_i of -log( e_ip / (e_ip + sum over j in N_i of e_ij) ),
    e_ij = exp(z_i . z_j / t).

A positive is no negative of another positive. ``global_negatives`` g mixes this loss with one whose
negatives come from the whole batch: (1 - g) * L_session + g * L_global.

Contrast between neighbours in time is from Hyvarinen and Morioka (time-contrastive learning, NIPS
2016), with negatives of the same record from Franceschi et al. (arXiv 1901.10738).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from primus_scale.config import NearConfig
from primus_scale.distributed.collectives import gather, world_size
from primus_scale.objective.contrast import GlobalRows, TermLoss
from primus_scale.objective.positives import gather_origins
from primus_scale.sample import Origin

_TOLERANCE_S = 1e-5  # start times are rounded to microseconds


class NearMasks(NamedTuple):
    """Pairs of a rank's B windows with the N of the global batch, ``(B, N)`` bool.

    positives: near in time, in one recording of one session. session_negatives: windows of the
    session that are far in time or in another recording. global_negatives: those, and all windows
    of other sessions. Windows of one recording that are neither near nor far are in none.
    """

    positives: torch.Tensor
    session_negatives: torch.Tensor
    global_negatives: torch.Tensor


def near_masks(local: Origin, all_rows: Origin, config: NearConfig) -> NearMasks:
    """The masks of a rank's windows ``local`` ``(B,)`` against the global batch ``(N,)``.

    A window whose start time is not known is no positive, and no negative within its recording.
    """
    own = Origin(*(column[:, None] for column in local))  # (B, 1), to compare with (N,)
    apart_s = (own.start_s - all_rows.start_s).abs()
    known = apart_s.isfinite()  # NaN or infinite where a time is unknown
    one_recording = own.recording == all_rows.recording
    one_session = own.session == all_rows.session
    near = (apart_s >= config.min_s - _TOLERANCE_S) & (apart_s <= config.max_s + _TOLERANCE_S)
    far = (apart_s > config.exclude_s + _TOLERANCE_S) & known
    not_far = one_recording & ~far
    return NearMasks(
        positives=one_session & one_recording & near & known,
        session_negatives=one_session & ~not_far,
        global_negatives=~not_far & (own.uid != all_rows.uid),
    )


def near_contrast(
    embeddings: GlobalRows, temperature: torch.Tensor, origin: Origin, config: NearConfig
) -> TermLoss:
    """The loss of the module on a rank's rows; shares and gradients as ``contrastive``.

    origin: of the rank's windows. rows: windows of the global batch with positives and negatives
    (of their session, unless all negatives are global). Without any the loss is 0.
    """
    masks = near_masks(origin, gather_origins(origin), config)
    with torch.autocast(embeddings.local.device.type, enabled=False):
        logits = embeddings.local @ embeddings.all.T / temperature
        mix = config.global_negatives  # g in the formula of the module
        parts = []
        if mix < 1:
            parts.append((1 - mix, _contrast(logits, masks.positives, masks.session_negatives)))
        if mix > 0:
            parts.append((mix, _contrast(logits, masks.positives, masks.global_negatives)))
    loss = torch.stack([weight * part.loss for weight, part in parts]).sum()
    return TermLoss(loss, parts[0][1].rows)


def _contrast(logits: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> TermLoss:
    """The loss of logits ``(B, N)``, whose rows are those of this rank."""
    count = positives.sum(1)
    valid = (count > 0) & negatives.any(1)
    # Rows without negatives get one, so that their gradient is 0 and not NaN.
    negatives = negatives | ~valid[:, None]
    of_negatives = logits.masked_fill(~negatives, -torch.inf).logsumexp(1, keepdim=True)
    losses = functional.softplus(of_negatives - logits) * positives
    means = torch.where(valid, losses.sum(1) / count.clamp(min=1), 0.0)
    rows = gather(valid).sum()
    return TermLoss(means.sum() * (world_size() / rows.clamp(min=1)), rows)
