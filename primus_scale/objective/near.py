"""The term ``imu_near``: contrast between windows of one session that are near or far in time.

The positives of a window are the windows of its session that start ``min_s`` to ``max_s`` before or
after it, in the same recording. Its negatives are the windows of its session that are further than
``exclude_s`` from it, or in another recording. Positives and negatives have the same person and the
same mounting of the device. They differ only in what the person does at the time.

Let P_i be the positives and N_i the negatives of window i in the global batch, z_i its embedding of
unit length, and t the temperature. Window i has the loss

    1/|P_i| * sum over p in P_i of -log( e_ip / (e_ip + sum over j in N_i of e_ij) ),
    e_ij = exp(z_i . z_j / t),

and the loss L_session is the mean over the windows that have positives and negatives. Positives do
not compete with each other: the denominator has one of them only. ``global_negatives`` g mixes this
loss with one whose negatives come from the whole batch: (1 - g) * L_session + g * L_global.

Contrast between windows near in time is from Hyvarinen and Morioka (time-contrastive learning, NIPS
2016), with negatives of the same record from Franceschi et al. (arXiv 1901.10738).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from primus_scale.config import NearConfig
from primus_scale.distributed.collectives import world_size
from primus_scale.objective.pairs import PairLoss
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


class NearContrast(PairLoss):
    """The loss of the module on a rank's rows: its share of the mean, see ``share_of``.

    local ``(B,)``: the rank's windows. all_rows ``(N,)``: those of the global batch, whose
    embeddings are the keys. After ``finish``, ``rows`` is the number of windows of the global batch
    that have positives and negatives (of their session, unless all negatives are global). Without
    any the loss is 0.
    """

    def __init__(self, local: Origin, all_rows: Origin, config: NearConfig) -> None:
        self._local, self._all, self._config = local, all_rows, config
        mix = config.global_negatives  # g in the formula of the module
        weights = {"session_negatives": 1 - mix, "global_negatives": mix}
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    @property
    def rows(self) -> torch.Tensor:
        """0-d int64, the same on every rank."""
        return next(iter(self._counts.values()))

    def prepare(self, logits: torch.Tensor, rows: slice, temperature: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``: the logits."""
        return logits

    def add_block(self, block: torch.Tensor, rows: slice) -> None:
        """See ``PairLoss``."""
        masks = near_masks(self._local.at(rows), self._all, self._config)
        for name in self._weights:
            losses, valid = _window_losses(block, masks.positives, getattr(masks, name))
            self._sums[name] = self._sums.get(name, 0) + losses.sum()
            self._counts[name] = self._counts.get(name, 0) + valid.sum()

    def message(self) -> torch.Tensor:
        """The number of valid rows of this rank, for each kind of negatives that is used."""
        sums = next(iter(self._sums.values()))
        return torch.stack(list(self._counts.values())).to(sums.dtype)

    def finish(self, messages: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``."""
        counts = messages.sum(0).long()
        self._counts = dict(zip(self._weights, counts, strict=True))
        return torch.stack([self._share(name, self._sums[name]) for name in self._weights]).sum()

    def gradient(self, block: torch.Tensor, rows: slice) -> torch.Tensor:
        """See ``PairLoss``."""
        masks = near_masks(self._local.at(rows), self._all, self._config)
        with torch.enable_grad():
            logits = block.detach().requires_grad_()
            total = logits.new_zeros(())
            for name in self._weights:
                losses, _ = _window_losses(logits, masks.positives, getattr(masks, name))
                total = total + self._share(name, losses.sum())
            return torch.autograd.grad(total, logits)[0]

    def _share(self, negatives: str, total: torch.Tensor) -> torch.Tensor:
        """The weighted share of this rank in the mean over rows; total: the sum over its rows."""
        rows = self._counts[negatives].clamp(min=1)
        return self._weights[negatives] * world_size() * total / rows


def _window_losses(
    logits: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each window, and whether it has positives and negatives; both ``(b,)``.

    All arguments ``(b, N)``. The loss of a window that lacks either is 0.
    """
    count = positives.sum(1)
    valid = (count > 0) & negatives.any(1)
    # Windows that are not valid get negatives, so that their gradient is 0 and not NaN.
    negatives = negatives | ~valid[:, None]
    of_negatives = logits.masked_fill(~negatives, -torch.inf).logsumexp(1, keepdim=True)
    losses = functional.softplus(of_negatives - logits) * positives
    return torch.where(valid, losses.sum(1) / count.clamp(min=1), 0.0), valid
