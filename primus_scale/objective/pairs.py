"""Losses of pairs: the B queries of a rank with the N keys of all ranks, in blocks of rows.

With queries q, keys k, temperature t and bias b (0 where a loss has none), the logits are

    l_ij = q_i . k_j / t + b,

and a loss is a sum S over pairs (i, j) that a ``PairLoss`` makes of them. The matrix ``(B, N)`` is
never whole in memory, nor anything else of its size: blocks of ROWS_AT_ONCE rows are computed,
used, and computed again for the gradient (as activations in arXiv 1604.06174). With g_ij = dS/dl_ij
that is

    dS/dq_i = 1/t * sum over j of g_ij k_j,     dS/dt = -1/t * sum over i of q_i . dS/dq_i,
    dS/dk_j = 1/t * sum over i of g_ij q_i,     dS/db = sum over i and j of g_ij,

where the sums over i are over the rows of this rank: ranks add them up. So memory is linear in N,
and value and gradient are those of the whole matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from primus_scale.distributed.collectives import gather, world_size

ROWS_AT_ONCE = 256  # of queries: a block has so many rows and N columns
# Up to so many pairs the logits of the forward pass are kept for the gradient: computing them again
# takes longer than their 4 MB are worth (benchmarks/loss.py).
KEPT_PAIRS = 2**20
_BUFFERS = 4  # matrices of a block's size that exist at a time


class PairLoss(ABC):
    """A sum over pairs, seen block by block in two passes.

    First ``see`` gets each block once. Then ranks exchange what they ``tell``, and ``conclude``
    gives the sum. Then ``gradient`` gets each block again. ``rows`` are those of the block. Both
    may overwrite its logits ``(b, N)``, but ``see`` only so that ``gradient`` may get the same.
    """

    @abstractmethod
    def see(self, logits: torch.Tensor, rows: slice) -> None:
        """Note what is needed of a block."""

    @abstractmethod
    def tell(self) -> torch.Tensor:
        """What the other ranks need of this one, ``(m,)``, with the same m on every rank."""

    @abstractmethod
    def conclude(self, told: torch.Tensor) -> torch.Tensor:
        """The sum of this rank, 0-d. told ``(W, m)``: what all W ranks tell."""

    @abstractmethod
    def gradient(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """The gradient of the sum over all ranks in the logits of a block, ``(b, N)``."""


@dataclass(frozen=True)
class PairSum:
    """A loss and the vectors that it is about.

    queries ``(B, D)`` of this rank, keys ``(N, D)`` of all ranks, of unit length; temperature and
    bias 0-d. Gradients go to those that require one.
    """

    loss: PairLoss
    queries: torch.Tensor
    keys: torch.Tensor
    temperature: torch.Tensor
    bias: torch.Tensor | None = None


def sum_pairs(sums: Sequence[PairSum]) -> list[torch.Tensor]:
    """The sums of this rank, 0-d each, with one message between the ranks for all of them.

    Their gradients are right where the same factor multiplies a sum on every rank.
    """
    if not sums:
        return []
    with torch.no_grad(), torch.autocast(sums[0].queries.device.type, enabled=False):
        kept = [_see(each) for each in sums]
        messages = [each.loss.tell() for each in sums]
        told = gather(torch.cat(messages)).view(world_size(), -1).split(list(map(len, messages)), 1)
    values = [each.loss.conclude(all_ranks) for each, all_ranks in zip(sums, told, strict=True)]
    return [
        _Differentiable.apply(s.queries, s.keys, s.temperature, s.bias, s.loss, value, logits)
        for s, value, logits in zip(sums, values, kept, strict=True)
    ]


def memory_of(sums: int, queries: int, keys: int) -> int:
    """Bytes of float32 logits that ``sums`` sums of so many queries and keys hold at most."""
    kept = queries * keys if queries * keys <= KEPT_PAIRS else 0
    return 4 * keys * _BUFFERS * min(queries, _block_rows(queries, keys)) + 4 * sums * kept


def _see(of: PairSum) -> torch.Tensor | None:
    """Show all blocks to the loss; returns the logits where they are kept."""
    logits = None
    for rows in _blocks(of.queries, of.keys):
        logits = _logits(of.queries[rows], of.keys, of.temperature, of.bias)
        of.loss.see(logits, rows)
    return logits if len(of.queries) * len(of.keys) <= KEPT_PAIRS else None


def _blocks(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[slice]:
    at_once = _block_rows(len(queries), len(keys))
    return (slice(first, first + at_once) for first in range(0, len(queries), at_once))


def _block_rows(queries: int, keys: int) -> int:
    return max(queries, 1) if queries * keys <= KEPT_PAIRS else ROWS_AT_ONCE


def _logits(
    queries: torch.Tensor, keys: torch.Tensor, temperature: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    logits = (queries / temperature) @ keys.T
    return logits if bias is None else logits.add_(bias)


class _Differentiable(torch.autograd.Function):
    """A sum that is known already, with the gradient of the module's formulas."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        keys: torch.Tensor,
        temperature: torch.Tensor,
        bias: torch.Tensor | None,
        loss: PairLoss,
        value: torch.Tensor,
        kept: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(queries, keys, temperature, bias)
        ctx.loss, ctx.kept = loss, kept
        return value.clone()

    @staticmethod
    def backward(ctx: Any, of_sum: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, temperature, bias = ctx.saved_tensors
        of_queries = torch.empty_like(queries)
        of_keys = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        of_bias = None if bias is None else torch.zeros_like(bias)
        with torch.autocast(queries.device.type, enabled=False):
            for rows in _blocks(queries, keys):
                some = queries[rows]
                if ctx.kept is None:
                    logits = _logits(some, keys, temperature, bias)
                else:
                    logits = ctx.kept.clone()  # a graph may be used twice
                of_logits = ctx.loss.gradient(logits, rows)
                torch.mm(of_logits, keys, out=of_queries[rows])
                if of_keys is not None:
                    of_keys.addmm_(of_logits.T, some)
                if of_bias is not None:
                    of_bias += of_logits.sum()
            factor = of_sum / temperature
            of_queries *= factor
            if of_keys is not None:
                of_keys *= factor
            if of_bias is not None:
                of_bias *= of_sum
            of_temperature = -(queries * of_queries).sum() / temperature
        return of_queries, of_keys, of_temperature, of_bias, None, None, None
