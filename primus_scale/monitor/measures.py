"""Measures of an embedding space: collapse, and retrieval between two modalities.

Pure functions without gradient. Embeddings need not be normalised: in the formulas, x and y are
the rows of the arguments after L2 normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

SAME_DIRECTION = 1e-5  # of 1 - cosine
PAIRS_AT_ONCE = 2**24  # similarities held at a time, 64 MB


@torch.no_grad()
def alignment(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of positive pairs on the sphere, 0 to 4 (arXiv 2005.10242), 0-d.

        1/B * sum over i of |x_i - y_i|^2

    first, second ``(B, D)``: row i of one belongs to row i of the other.
    """
    return (_normalise(first) - _normalise(second)).square().sum(1).mean()


@torch.no_grad()
def uniformity(embeddings: torch.Tensor, t: float = 2.0) -> torch.Tensor:
    """Log of the mean Gaussian potential over all pairs (arXiv 2005.10242), 0-d.

        log( mean over i < j of exp(-t * |x_i - x_j|^2) )

    embeddings ``(B, D)``, B at least 2. It is 0 where all rows are equal, and lower the more evenly
    they are spread.
    """
    unit = _normalise(embeddings)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    distances = (2 - 2 * (unit @ unit.T)).clamp(min=0)[rows, columns]
    return torch.logsumexp(-t * distances, 0) - torch.tensor(float(len(rows))).log()


@torch.no_grad()
def effective_rank(embeddings: torch.Tensor) -> torch.Tensor:
    """Number of directions that the embeddings ``(B, D)`` use, 1 to min(B, D), 0-d.

    It is the exponential of the entropy of the singular values s (Roy and Vetterli, 2007):

        exp( -sum over i of p_i * log(p_i) ),  p_i = s_i / sum over j of s_j.
    """
    singular = torch.linalg.svdvals(_normalise(embeddings))
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def recall_at_1(
    queries: torch.Tensor,
    keys: torch.Tensor,
    own: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    """Share of queries whose most similar key is their own, 0-d float64.

    queries ``(b, D)``, keys ``(B, D)``. own ``(b,)`` int64: row of the key that belongs to each
    query, by default the same row. groups ``(B,)`` int64: a key of the same group as a query's own
    key is a correct answer too, such as that of a window with the same narration
    (``group_equal``). At most PAIRS_AT_ONCE similarities are in memory.
    """
    own = torch.arange(len(queries), device=queries.device) if own is None else own
    best = torch.cat([similarity.argmax(1) for similarity in _similarities(queries, keys)])
    if groups is not None:
        own, best = groups[own], groups[best]
    return (own == best).double().mean()


@torch.no_grad()
def ranks_of_own(
    queries: torch.Tensor, keys: torch.Tensor, own: torch.Tensor, groups: torch.Tensor
) -> torch.Tensor:
    """For each query the place of the best correct key among all keys, ``(b,)`` int64 from 1 on.

    Arguments and memory as ``recall_at_1``. A wrong key that is as similar comes before the correct
    one, so that equal embeddings find nothing.
    """
    ranks, start = [], 0
    for similarity in _similarities(queries, keys):
        correct = groups[own[start : start + len(similarity)], None] == groups
        best = similarity.masked_fill(~correct, -torch.inf).amax(1, keepdim=True)
        ranks.append(1 + ((similarity >= best) & ~correct).sum(1))
        start += len(similarity)
    return torch.cat(ranks)


@torch.no_grad()
def group_equal(vectors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """For each of the vectors in the rows ``own``, the first row with an equal vector.

    vectors ``(B, D)``, own ``(b,)`` int64, result ``(b,)`` int64. Vectors are equal if they have
    the same direction, up to rounding. Memory as ``recall_at_1``.
    """
    firsts = [
        torch.where(alike.any(1), alike.to(torch.uint8).argmax(1), -1)
        for similarity in _similarities(vectors[own], vectors)
        for alike in [similarity > 1 - SAME_DIRECTION]
    ]
    first = torch.cat(firsts)
    return torch.where(first < 0, own, first)  # a vector of zeros has no direction


@torch.no_grad()
def chance_of_recall(groups: torch.Tensor, at: int = 1) -> torch.Tensor:
    """Recall@``at`` of a random order of the keys, 0-d float64.

        sum over groups g of c_g / B * (1 - C(B - c_g, at) / C(B, at)),  c_g of B keys in group g

    with binomials C; for ``at`` 1 that is sum (c_g / B)^2, and 1/B where no two keys are equal.
    groups ``(B,)`` int64, see ``recall_at_1``.
    """
    _, counts = groups.unique(return_counts=True)
    share = counts.double() / len(groups)
    missed = torch.ones_like(share)  # the product form of the ratio of binomials
    for drawn in range(min(at, len(groups))):
        missed *= (1 - counts / (len(groups) - drawn)).clamp(min=0)
    return (share * (1 - missed)).sum()


def _similarities(rows: torch.Tensor, columns: torch.Tensor) -> Iterator[torch.Tensor]:
    """Cosines of ``rows`` with all ``columns``, for some rows at a time, in their order."""
    columns = _normalise(columns)
    for some in rows.split(max(1, PAIRS_AT_ONCE // len(columns))):
        yield _normalise(some) @ columns.T


def _normalise(embeddings: torch.Tensor) -> torch.Tensor:
    return functional.normalize(embeddings.float(), dim=1)
