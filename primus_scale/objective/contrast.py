"""The contrastive loss that every term of the objective uses.

Each rank holds B rows of a global batch of N rows. It compares its *local queries with global
keys*: the keys of all ranks, gathered in rank order, with gradient where they are learned. A
rank's loss is its share: the mean over ranks is the loss of the global batch. Parameter gradients
averaged over ranks (as DeepSpeed does) equal those of one process that holds all N rows, also the
gradient of the temperature.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch.nn import functional

from primus_scale.distributed.collectives import (
    gather,
    gather_with_grad,
    is_distributed,
    rank,
    world_size,
)


class Pairs(NamedTuple):
    """A set of pairs of a query and a key of the global batch: the part that a rank needs.

    of_queries ``(B, N)`` bool: pairs of the rank's queries and all keys. of_keys ``(B, N)`` bool:
    pairs of the rank's keys and all queries.
    """

    of_queries: torch.Tensor
    of_keys: torch.Tensor


class TermLoss(NamedTuple):
    """The loss of a term.

    loss: 0-d, this rank's share; its mean over ranks is the loss of the global batch.
    rows: 0-d int64, the number of valid rows in the global batch; the same on every rank.
    """

    loss: torch.Tensor
    rows: torch.Tensor


class GlobalRows(NamedTuple):
    """Embeddings of the global batch, L2-normalised, float32.

    local: this rank's rows ``(B, D)``. all: those of all ranks in rank order ``(N, D)``.
    """

    local: torch.Tensor
    all: torch.Tensor


def gather_rows(embeddings: torch.Tensor) -> GlobalRows:
    """Normalise a rank's embeddings ``(B, D)`` and gather them, with gradient if they have one."""
    local = functional.normalize(embeddings.float(), dim=1)
    return GlobalRows(local, gather_with_grad(local) if local.requires_grad else gather(local))


def contrastive(
    queries: GlobalRows,
    keys: GlobalRows,
    temperature: torch.Tensor,
    valid: torch.Tensor,
    *,
    key_ids: torch.Tensor | None = None,
    same_cosine: float | None = None,
    no_negatives: Pairs | None = None,
    reduction: Literal["sum", "mean"] = "sum",
) -> TermLoss:
    """InfoNCE from queries to keys and from keys to queries, averaged over the valid rows.

    For the n valid rows of the global batch, with queries q and keys k at temperature t, it is

        1/n * sum over i of ( info_nce(q_i; k_1 ... k_n, t) + info_nce(k_i; q_1 ... q_n, t) ),

    half of that with ``reduction`` "mean" (arXiv 2411.15127 has the sum). Key i is the positive of
    query i. The other keys are its negatives, except

    - those of rows that are not ``valid`` ``(B,)`` bool, which lack a query or a key;
    - those that equal the positive, since they would be false negatives: equal ``key_ids``
      ``(B,)`` int64, or a cosine above ``same_cosine``;
    - those of the pairs ``no_negatives``.

    temperature: 0-d. Without any valid row the loss is 0, with gradients of 0. All arithmetic is
    in float32.
    """
    with torch.autocast(queries.local.device.type, enabled=False):
        all_valid = gather(valid)
        same = _same_keys(keys, key_ids, same_cosine)
        # The positive of each row is excluded here too; ``_logits`` includes it again.
        excluded = ~(valid[:, None] & all_valid) | same
        further = no_negatives or Pairs(excluded, excluded)
        first = rank() * len(valid)
        logits = _logits(queries.local, keys.all, temperature, excluded | further.of_queries, first)
        if is_distributed():
            reverse = _logits(
                keys.local, queries.all, temperature, excluded | further.of_keys, first
            )
        else:
            reverse = logits.T  # one process holds both directions in one matrix
        losses = _cross_entropy(logits, first) + _cross_entropy(reverse, first)
        if reduction == "mean":
            losses = losses / 2
        rows = all_valid.sum()
        share = torch.where(valid, losses, 0.0).sum() * (world_size() / rows.clamp(min=1))
    return TermLoss(share, rows)


def info_nce(
    queries: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor | float,
    excluded: torch.Tensor | None = None,
    first: int = 0,
) -> torch.Tensor:
    """InfoNCE of each query against all keys, ``(B,)`` (arXiv 1807.03748).

    For a query q_i with its positive k_i at temperature t it is

        -log( exp(q_i . k_i / t) / sum over j of exp(q_i . k_j / t) ),

    where the sum is over the positive and all keys that are not excluded for query i.

    queries ``(B, D)`` and keys ``(N, D)``, L2-normalised; the positive of query i is the key in
    row ``first + i``. excluded ``(B, N)`` bool: pairs that are no negatives.
    """
    if excluded is None:
        excluded = torch.zeros(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    return _cross_entropy(_logits(queries, keys, temperature, excluded, first), first)


def same_vectors(first: torch.Tensor, second: torch.Tensor, cosine: float) -> torch.Tensor:
    """Which vectors are equal up to rounding: ``(B, D)``, ``(N, D)`` -> ``(B, N)`` bool.

    Both must be L2-normalised. Vectors are equal if their cosine is above ``cosine``.
    """
    return first.detach() @ second.detach().T > cosine


def _same_keys(
    keys: GlobalRows, key_ids: torch.Tensor | None, same_cosine: float | None
) -> torch.Tensor:
    """Rows with equal keys, ``(B, N)`` bool, or ``(1, 1)`` False where none can be equal."""
    same = keys.local.new_zeros(1, 1, dtype=torch.bool)
    if key_ids is not None:
        same = same | (key_ids[:, None] == gather(key_ids))
    if same_cosine is not None:
        same = same | same_vectors(keys.local, keys.all, same_cosine)
    return same


def _logits(
    queries: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor | float,
    excluded: torch.Tensor,
    first: int,
) -> torch.Tensor:
    """Logits ``(B, N)``, -inf for excluded pairs, never for positives (row i, column first + i)."""
    excluded = excluded.scatter(1, _positive_columns(queries, first)[:, None], False)
    return (queries @ keys.T * (1 / temperature)).masked_fill(excluded, -torch.inf)


def _cross_entropy(logits: torch.Tensor, first: int) -> torch.Tensor:
    return functional.cross_entropy(logits, _positive_columns(logits, first), reduction="none")


def _positive_columns(rows: torch.Tensor, first: int) -> torch.Tensor:
    """The column of the positive in each of ``rows``, ``(B,)`` int64."""
    return torch.arange(first, first + len(rows), device=rows.device)
