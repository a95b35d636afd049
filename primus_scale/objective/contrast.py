"""The contrastive losses that the terms of the objective use: InfoNCE and the sigmoid loss.

Each rank holds B rows of a global batch of N rows. It compares its *local queries with global
keys*: the keys of all ranks, gathered in rank order, with gradient where they are learned. A
rank's loss is its share: the mean over ranks is the loss of the global batch. DeepSpeed averages
the parameter gradients over ranks. The averages equal the gradients of one process that holds all
N rows, that of the temperature included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional

from primus_scale.distributed.collectives import gather, rank, world_size
from primus_scale.objective.pairs import ROWS_AT_ONCE, PairLoss
from primus_scale.sample import Origin
from primus_scale.support import Exclusion

# InfoNCE of a lower temperature t has exponentials in float64. Those of float32 reach exp(88), and
# the largest is exp(1/t); sums of up to 1e10 of them have room.
LOWEST_IN_FLOAT32 = 1 / 64
SHORTEST = 1e-12  # length that a row is divided by, as in torch's ``normalize``
SCREENED = 32  # elements of a key that are compared first, in the search for equal keys
SCREEN_ROUNDING = 1e-6  # of inner products of unit vectors in float32


class TermLoss(NamedTuple):
    """The loss of a term.

    loss: 0-d, this rank's share; its mean over ranks is the loss of the global batch.
    rows: 0-d int64, the number of valid rows in the global batch; the same on every rank.
    """

    loss: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class SameMoment:
    """Pairs whose key is of the query's own window, or of its moment.

    queries ``(B,)``: the windows of this rank's queries. keys and valid ``(N, K)``: the windows of
    each key, of which those that are not valid do not count. within_s: see ``Origin.same_moment``.
    """

    queries: Origin
    keys: Origin
    valid: torch.Tensor
    within_s: float

    def block(self, rows: slice) -> torch.Tensor:
        """The pairs of the queries ``rows`` with all keys, ``(b, N)`` bool.

        True where any of the key's valid windows is of the query's moment.
        """
        own = Exclusion(self.queries.at(rows), self.within_s)
        blocks = [
            own.covers(Origin(*(column[:, k] for column in self.keys))) & self.valid[:, k]
            for k in range(self.valid.shape[1])
        ]
        return blocks[0] if len(blocks) == 1 else torch.stack(blocks).any(0)


@dataclass(frozen=True)
class Negatives:
    """Which keys of the global batch are negatives of a query.

    Key i is the positive of query i. All other keys are its negatives, except

    - keys of rows that are not ``valid`` ``(N,)`` bool, which lack a query or a key;
    - keys that equal the positive, since they would be false negatives: equal ``ids`` ``(N,)``
      int64, see ``ids_of_equal``;
    - keys of the ``same_moment`` as the query.

    All fields have N rows. The B rows of this rank begin at row ``first``.
    """

    valid: torch.Tensor
    ids: torch.Tensor | None = None
    same_moment: SameMoment | None = None

    @property
    def first(self) -> int:
        """The row in the global batch of this rank's first query."""
        return rank() * (len(self.valid) // world_size())

    @property
    def own_valid(self) -> torch.Tensor:
        """Which of this rank's rows are valid, ``(B,)`` bool."""
        return self.valid[self.first :][: len(self.valid) // world_size()]

    def mask(self, values: torch.Tensor, rows: slice, value: float) -> None:
        """Set ``values`` ``(b, N)`` of pairs that are neither positives nor negatives to ``value``.

        In place. rows: the rank's queries that the values are of.
        """
        positives = self.positives(values, rows)
        kept = positives.clone()
        if self.ids is not None:
            own = self.ids[self.first :][: len(self.own_valid)]
            excluded = own[rows, None] == self.ids
        else:
            excluded = torch.zeros_like(values, dtype=torch.bool)
        excluded |= ~self.valid
        excluded |= ~self.own_valid[rows, None]
        if self.same_moment is not None:
            excluded |= self.same_moment.block(rows)
        values.masked_fill_(excluded, value)
        positives.copy_(kept)

    def positives(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """A view of those of ``values`` ``(b, N)`` that are of positive pairs, ``(b,)``."""
        start, _, _ = rows.indices(len(self.own_valid))
        return values.diagonal(self.first + start)


class InfoNce(PairLoss):
    """InfoNCE from queries to keys and from keys to queries (arXiv 1807.03748).

    S is the sum over all valid rows i and over the two directions, as in arXiv 2411.15127. With
    ``reduction`` "mean" it is half of that. The sums over j are over the positive and the
    negatives:

        S = sum over i of ( R_i - l_ii + C_i - l_ii ),
        R_i = log(sum over j of e_ij),    C_i = log(sum over j of e_ji),    e_ij = exp(l_ij),
        dS/dl_ij = e_ij * ( exp(-R_i) + exp(-C_j) ) - 2 * (i = j).

    Both directions and the gradient use one matrix of exponentials. Since |l_ij| is at most 1/t,
    they are in the range of float32, or of float64 for low temperatures t. A rank has its rows
    whole, but only a part of each column. So the ranks exchange their partial sums of the columns.
    """

    def __init__(self, negatives: Negatives, reduction: Literal["sum", "mean"] = "sum") -> None:
        self._negatives = negatives
        self._factor = 0.5 if reduction == "mean" else 1.0
        self._row_sums: list[torch.Tensor] = []  # of each block so far
        self._positives: list[torch.Tensor] = []
        self._column_sums: torch.Tensor | None = None  # over this rank's rows so far
        self._shares: tuple[torch.Tensor, torch.Tensor] | None = None  # exp(-R) and exp(-C)
        self._exponent_dtype: torch.dtype | None = None

    def prepare(self, logits: torch.Tensor, rows: slice, temperature: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``: the exponentials, 0 for pairs that do not count."""
        if self._exponent_dtype is None:  # once, since a GPU waits for it
            self._dtype = logits.dtype
            low = abs(float(temperature)) < LOWEST_IN_FLOAT32
            self._exponent_dtype = torch.float64 if low else logits.dtype
        exponentials = logits.to(self._exponent_dtype).exp_()
        self._negatives.mask(exponentials, rows, 0.0)
        return exponentials

    def add_block(self, block: torch.Tensor, rows: slice) -> None:
        """See ``PairLoss``."""
        self._positives.append(self._negatives.positives(block, rows).clone())
        self._row_sums.append(block.sum(1))
        columns = block.sum(0)
        before = self._column_sums
        self._column_sums = columns if before is None else before + columns

    def message(self) -> torch.Tensor:
        """C over this rank's rows only, ``(N,)``."""
        assert self._column_sums is not None
        return self._column_sums.log().to(self._dtype)

    def finish(self, messages: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``."""
        negatives = self._negatives
        valid = negatives.own_valid
        row_sums = torch.cat(self._row_sums)
        column_logsums = messages.logsumexp(0).to(row_sums.dtype)
        own_columns = column_logsums[negatives.first :][: len(valid)]
        losses = row_sums.log() + own_columns - 2 * torch.cat(self._positives).log()
        # Rows that are not valid have no gradient.
        rows = torch.where(valid, self._factor / row_sums, 0.0)
        self._shares = rows, self._factor * column_logsums.neg().exp()
        return self._factor * torch.where(valid, losses, 0.0).sum().to(self._dtype)

    def gradient(self, block: torch.Tensor, rows: slice) -> torch.Tensor:
        """See ``PairLoss``."""
        assert self._shares is not None
        of_rows, of_columns = self._shares
        gradient = (of_rows[rows, None] + of_columns).mul_(block)
        positives = self._negatives.positives(gradient, rows)
        positives -= 2 * self._factor
        positives.masked_fill_(~self._negatives.own_valid[rows], 0.0)
        return gradient.to(self._dtype)


class SigmoidLoss(PairLoss):
    """The sigmoid loss of SigLIP (arXiv 2303.15343), with a learned bias.

    The sum is over all valid rows i; with s(x) = 1 / (1 + exp(-x)),

        S = -sum over i of ( log s(l_ii) + sum over negatives j of i of log s(-l_ij) ),
        dS/dl_ij = s(l_ij) - (i = j).

    There is no sum within the logarithm, so ranks exchange nothing. Each pair counts once: there
    is one direction only.
    """

    def __init__(self, negatives: Negatives) -> None:
        self._negatives = negatives
        self._losses: list[torch.Tensor] = []

    def prepare(self, logits: torch.Tensor, rows: slice, temperature: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``: the logits, -inf for pairs that do not count."""
        self._negatives.mask(logits, rows, -torch.inf)
        return logits

    def add_block(self, block: torch.Tensor, rows: slice) -> None:
        """See ``PairLoss``."""
        positives = self._negatives.positives(block, rows)
        self._losses.append(functional.softplus(block).sum(1) - positives)

    def message(self) -> torch.Tensor:
        """Empty."""
        return self._losses[0].new_empty(0)

    def finish(self, messages: torch.Tensor) -> torch.Tensor:
        """See ``PairLoss``."""
        return torch.where(self._negatives.own_valid, torch.cat(self._losses), 0.0).sum()

    def gradient(self, block: torch.Tensor, rows: slice) -> torch.Tensor:
        """See ``PairLoss``."""
        gradient = block.sigmoid()
        positives = self._negatives.positives(gradient, rows)
        positives -= 1
        positives.masked_fill_(~self._negatives.own_valid[rows], 0.0)
        return gradient


def share_of(total: torch.Tensor, rows: torch.Tensor) -> TermLoss:
    """The share of this rank in the mean over the valid rows of the global batch.

    total: 0-d, the sum over this rank's valid rows. rows: 0-d, the number of valid rows in the
    global batch. Without any, the loss is 0.
    """
    return TermLoss(total * world_size() / rows.clamp(min=1), rows)


def unit_rows(embeddings: torch.Tensor) -> torch.Tensor:
    """Embeddings ``(..., D)`` of unit length, float32 (float64 stays as it is)."""
    exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    if not (torch.is_grad_enabled() and exact.requires_grad):
        return functional.normalize(exact, dim=-1)
    unit: torch.Tensor = _UnitRows.apply(exact)
    return unit


class _UnitRows(torch.autograd.Function):
    """Rows x of unit length, u = x / n with n = |x|; its gradient takes a third of torch's time.

    With g = dS/du, dS/dx = (g - u (u . g)) / n. Rows shorter than SHORTEST are divided by that.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min_(SHORTEST)
        unit = rows / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        unit, length = ctx.saved_tensors
        along = (unit * grad).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, unit, along, value=-1).div_(length)


@torch.no_grad()
def ids_of_equal(keys: torch.Tensor, cosine: float) -> torch.Tensor:
    """Ids ``(B,)`` int64 of this rank's keys: keys that are equal up to rounding have equal ids.

    keys ``(N, D)``: those of the global batch, of unit length. The id of a key is the row of the
    first key whose cosine with it is above ``cosine``.

    Equal vectors are equal in each element. So a few elements are compared first, which takes a
    small part of the time. They show for most keys that no key before is equal.
    """
    first, count = rank() * (len(keys) // world_size()), len(keys) // world_size()
    few = keys[:, :: max(1, keys.shape[1] // SCREENED)].contiguous()
    # For a and b of unit length |a - b|^2 = 2 - 2 a.b. Over a few elements it is at most that.
    least = few.square().sum(1) / 2 - (1 - cosine) / 2 - SCREEN_ROUNDING
    end = first + count  # the keys of later ranks come after all keys of this rank
    ids = torch.arange(first, end, device=keys.device)
    for rows in ids.split(ROWS_AT_ONCE):  # views of ``ids``
        maybe = few[rows] @ few[:end].T > least[rows, None] + least[:end]
        candidates = maybe.to(torch.uint8).argmax(1)
        equal = (keys[candidates] * keys[rows]).sum(1) > cosine
        unsure = rows[~equal & (candidates < rows)]
        rows.copy_(torch.where(equal, candidates, rows))
        if len(unsure):
            same = keys[unsure] @ keys[:end].T > cosine
            found = same.scatter_(1, unsure[:, None], True).to(torch.uint8).argmax(1)
            ids[unsure - first] = found
    return ids


def gather_ids(ids: list[torch.Tensor]) -> list[torch.Tensor]:
    """Ids ``(B,)`` of all ranks, ``(N,)`` each, gathered in one message."""
    return list(gather(torch.stack(ids, dim=1)).unbind(1)) if ids else []
