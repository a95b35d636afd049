"""Losses of pairs: the B queries of a rank with the N keys of all ranks, in blocks of rows.

With queries q, keys k, temperature t and bias b (0 where a loss has none), the logits are

    l_ij = q_i . k_j / t + b,

and a loss is a sum S over the pairs (i, j), which a ``PairLoss`` computes from the logits. The
matrix ``(B, N)`` is never whole in memory, nor anything else of its size. Blocks of ROWS_AT_ONCE
rows are computed and used, and computed again for the gradient (as activations are in arXiv
1604.06174). With g_ij = dS/dl_ij the gradient is

    dS/dq_i = 1/t * sum over j of g_ij k_j,     dS/dt = -1/t * sum over i of q_i . dS/dq_i,
    dS/dk_j = 1/t * sum over i of g_ij q_i,     dS/db = sum over i and j of g_ij,

The sums over i are over the rows of this rank; the ranks add them up. So memory is linear in N, and
value and gradient are those of the whole matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from primus_scale.distributed.collectives import gather, world_size

ROWS_AT_ONCE = 256  # queries of a block, which has N columns
# Blocks of the forward pass are kept for the gradient if there are at most this many pairs: to
# compute them again takes longer than their 4 MB are worth (benchmarks/loss.py).
KEPT_PAIRS = 2**20
_BUFFERS = 5  # float32 matrices of a block's size that exist at a time; float64 counts as two


class PairLoss(ABC):
    """A sum over pairs, computed in two passes over the blocks of logits.

    The first pass calls ``prepare`` and ``add_block`` with each block. Then the ranks exchange
    their ``message``, and ``finish`` gives the sum. The second pass calls ``gradient`` with each
    block, prepared again or kept.

    rows: the queries of the block.
    """

    @abstractmethod
    def prepare(self, logits: torch.Tensor, rows: slice, temperature: torch.Tensor) -> torch.Tensor:
        """What both passes need of a block's logits ``(b, N)``, which it may overwrite."""

    @abstractmethod
    def add_block(self, block: torch.Tensor, rows: slice) -> None:
        """Add a prepared block to the sum, without changing it."""

    @abstractmethod
    def message(self) -> torch.Tensor:
        """What the other ranks need from this one, ``(m,)``, with the same m on every rank."""

    @abstractmethod
    def finish(self, messages: torch.Tensor) -> torch.Tensor:
        """The sum of this rank, 0-d. messages ``(W, m)``: those of all W ranks."""

    @abstractmethod
    def gradient(self, block: torch.Tensor, rows: slice) -> torch.Tensor:
        """The gradient of the sum over all ranks in the logits of a prepared block, ``(b, N)``.

        A new tensor: the block stays as it is.
        """


@dataclass(frozen=True)
class PairSum:
    """A loss, and the vectors whose pairs it sums over.

    queries ``(B, D)`` of this rank and keys ``(N, D)`` of all ranks, both of unit length;
    temperature and bias 0-d. Each tensor that requires a gradient gets one.
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
        kept = [_add_blocks(each) for each in sums]
        messages = [each.loss.message() for each in sums]
        lengths = [len(message) for message in messages]
        of_all_ranks = gather(torch.cat(messages)).view(world_size(), -1).split(lengths, dim=1)
    values = [each.loss.finish(found) for each, found in zip(sums, of_all_ranks, strict=True)]
    return [
        _SumWithGradient.apply(s.queries, s.keys, s.temperature, s.bias, s.loss, value, block)
        for s, value, block in zip(sums, values, kept, strict=True)
    ]


def memory_of(sums: int, queries: int, keys: int) -> int:
    """Most bytes of pairs that ``sums`` sums hold at a time, with blocks kept in float64.

    queries, keys: how many each sum has.
    """
    kept = queries * keys if queries * keys <= KEPT_PAIRS else 0
    return 4 * keys * _BUFFERS * min(queries, _block_rows(queries, keys)) + 8 * sums * kept


def _add_blocks(pairs: PairSum) -> torch.Tensor | None:
    """Add all blocks to the loss; returns the prepared block where it is kept (then only one)."""
    block = None
    for rows in _blocks(pairs.queries, pairs.keys):
        block = _prepared(
            pairs.loss, rows, pairs.queries[rows], pairs.keys, pairs.temperature, pairs.bias
        )
        pairs.loss.add_block(block, rows)
    return block if len(pairs.queries) * len(pairs.keys) <= KEPT_PAIRS else None


def _blocks(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[slice]:
    at_once = _block_rows(len(queries), len(keys))
    return (slice(first, first + at_once) for first in range(0, len(queries), at_once))


def _block_rows(queries: int, keys: int) -> int:
    return max(queries, 1) if queries * keys <= KEPT_PAIRS else ROWS_AT_ONCE


def _prepared(
    loss: PairLoss,
    rows: slice,
    queries: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The block of the queries ``rows`` ``(b, D)``, prepared for the loss."""
    logits = (queries / temperature) @ keys.T
    return loss.prepare(logits if bias is None else logits.add_(bias), rows, temperature)


class _SumWithGradient(torch.autograd.Function):
    """A sum whose value is known already, and whose gradient is by the formulas of the module."""

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
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, temperature, bias = ctx.saved_tensors
        queries_grad = torch.empty_like(queries)
        keys_grad = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        bias_grad = None if bias is None else torch.zeros_like(bias)
        with torch.autocast(queries.device.type, enabled=False):
            for rows in _blocks(queries, keys):
                some = queries[rows]
                block = ctx.kept
                if block is None:
                    block = _prepared(ctx.loss, rows, some, keys, temperature, bias)
                logits_grad = ctx.loss.gradient(block, rows)
                torch.mm(logits_grad, keys, out=queries_grad[rows])
                if keys_grad is not None:
                    keys_grad.addmm_(logits_grad.T, some)
                if bias_grad is not None:
                    bias_grad += logits_grad.sum()
            factor = grad / temperature
            queries_grad *= factor
            if keys_grad is not None:
                keys_grad *= factor
            if bias_grad is not None:
                bias_grad *= grad
            temperature_grad = -(queries * queries_grad).sum() / temperature
        return queries_grad, keys_grad, temperature_grad, bias_grad, None, None, None
