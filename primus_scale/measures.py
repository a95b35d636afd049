"""Measures of an embedding space: whether it collapses, and whether one side finds the other.

Pure functions without gradient; embeddings need not be normalised.
"""

from __future__ import annotations

import torch
from torch.nn import functional


@torch.no_grad()
def alignment(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of positive pairs on the sphere, 0 to 4 (arXiv 2005.10242).

    first, second ``(B, D)``: row i of one belongs to row i of the other. 0-d.
    """
    return (_normalise(first) - _normalise(second)).square().sum(1).mean()


@torch.no_grad()
def uniformity(embeddings: torch.Tensor, t: float = 2.0) -> torch.Tensor:
    """Log of the mean Gaussian potential over all pairs (arXiv 2005.10242), 0-d.

    embeddings ``(B, D)``, B at least 2. 0 where all rows are the same; lower is more spread.
    """
    unit = _normalise(embeddings)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    distances = (2 - 2 * (unit @ unit.T)).clamp(min=0)[rows, columns]
    return torch.logsumexp(-t * distances, 0) - torch.tensor(float(len(rows))).log()


@torch.no_grad()
def effective_rank(embeddings: torch.Tensor) -> torch.Tensor:
    """Number of directions the embeddings really use, 1 to min(B, D), 0-d.

    The exponential of the entropy of the normalised singular values (Roy and Vetterli, 2007) of
    the L2-normalised rows ``(B, D)``.
    """
    singular = torch.linalg.svdvals(_normalise(embeddings))
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def recall_at_1(
    queries: torch.Tensor, keys: torch.Tensor, same: torch.Tensor | None = None
) -> torch.Tensor:
    """Share of queries whose most similar key is their own, 0-d.

    queries, keys ``(B, D)``: row i of one belongs to row i of the other. same ``(B, B)`` bool:
    further rows whose key is as good an answer, such as windows with the same narration.
    """
    best = (_normalise(queries) @ _normalise(keys).T).argmax(1)
    rows = torch.arange(len(best), device=best.device)
    hit = best == rows
    if same is not None:
        hit = hit | same[rows, best]
    return hit.float().mean()


def _normalise(embeddings: torch.Tensor) -> torch.Tensor:
    return functional.normalize(embeddings.float(), dim=1)
