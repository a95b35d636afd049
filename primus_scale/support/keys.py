"""The keys of one modality in a part of the ring, and the search for the most alike of them.

A ``KeyIndex`` looks over ``Keys``, the rows that a part of the ring holds. Brute force (FAISS, or
torch as its oracle) searches them where they lie. Approximate indexes (``ivf``, ``segments``) keep
a structure of their own, and rank what they find again by the keys themselves, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from primus_scale.support.search import SCORES_AT_ONCE, SearchBackend, make_search

IndexKind = Literal["flat", "ivf", "cagra"]

# Given places ``(n,)`` or ``(B, n)``: may query b not be answered from there? ``(B, n)`` bool.
Strike = Callable[[torch.Tensor], torch.Tensor]

# A row of keys has one element more than its embedding: 0 where the entry answers queries of that
# modality, ABSENT where it does not. Queries have a 1 there, so that the inner product of an entry
# that may not answer falls below that of any that may (cosines are -1 or more), and the ring is
# searched where it lies, without copying the entries that answer.
ABSENT = -4.0
STORAGE = {"float32": torch.float32, "float16": torch.float16}  # of keys, by support.storage
NO_PLACE = -1
# Candidates fetched beyond those asked for: an index may score them a little wrong (float16 on a
# GPU, equal keys in another order), and they are ranked again in float32.
SURPLUS = 16
ROWS_AT_ONCE = 2**16  # of keys made float32 at a time
RANKED_AT_ONCE = 2**24  # elements of the keys gathered to rank candidates, 64 MB


@dataclass
class Keys:
    """Rows of one modality in a part of the ring.

    matrix ``(places, D + 1)`` float32 or float16: unit vectors, then 0 or ABSENT. used: places
    that have been written at all are those below it.
    """

    matrix: torch.Tensor
    used: int = 0

    @classmethod
    def empty(cls, places: int, dim: int, dtype: torch.dtype, device: torch.device | str) -> Keys:
        """Memory for ``places`` keys of width ``dim``, none of them written."""
        return cls(torch.zeros(places, dim + 1, dtype=dtype, device=device))

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.matrix.shape[1] - 1

    def reach(self, end: int) -> None:
        """Count the places before ``end`` as written; those that are not yet answer nothing."""
        if end > self.used:
            self.matrix[self.used : end, self.dim] = ABSENT
            self.used = end

    def unit(self, places: torch.Tensor) -> torch.Tensor:
        """The embeddings at ``places`` ``(...)``, float32 ``(..., D)``."""
        return self.matrix[places, : self.dim].float()

    def answers(self, places: torch.Tensor) -> torch.Tensor:
        """Whether the entries at ``places`` ``(...)`` answer queries, bool ``(...)``."""
        return self.matrix[places, self.dim] == 0


class KeyIndex(Protocol):
    """Finds among ``Keys`` those most alike queries."""

    @property
    def learning(self) -> bool:
        """Whether it prepares itself in the background, answering by brute force until then.

        It begins by a search, when something is due.
        """

    def written(self, places: torch.Tensor) -> None:
        """The rows at ``places`` ``(n,)`` int64, all different, hold other keys than before."""

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and places of the ``k`` best keys that answer, best first.

        queries ``(B, D)`` float32, of unit length. Scores ``(B, k)`` float32 are inner products
        with the keys as they are held; places ``(B, k)`` int64 are NO_PLACE where there are fewer.
        """


class FlatIndex:
    """Brute force over the keys themselves: exact, and nothing to maintain."""

    def __init__(self, keys: Keys, backend: SearchBackend) -> None:
        self._keys = keys
        self._search = make_search(backend, keys.matrix.device)

    @property
    def learning(self) -> bool:
        """It never does."""
        return False

    def written(self, places: torch.Tensor) -> None:
        """Nothing to do: keys are searched where they lie."""

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``KeyIndex.search``."""
        return self.search_between(queries, k, 0, self._keys.used)

    def search_between(
        self, queries: torch.Tensor, k: int, first: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same among the places from ``first`` to before ``end``, which have been written."""
        padded = torch.cat([queries, torch.ones_like(queries[:, :1])], dim=1)
        keys = self._keys.matrix[first:end]
        if keys.dtype == torch.float32 or keys.is_cuda:
            scores, places = self._search(padded.to(keys.dtype), keys, min(k, len(keys)))
        else:
            scores, places = self._search_in_float32(padded, keys, k)
        # Scores of NaN are not above it either.
        places = (places + first).masked_fill(~(scores > ABSENT / 2), NO_PLACE)
        return rank_again(queries, self._keys, places, k)

    def _search_in_float32(
        self, queries: torch.Tensor, keys: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Float16 keys on a CPU, some at a time: FAISS takes float32 alone there."""
        found = []
        for first in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[first : first + ROWS_AT_ONCE].float()
            scores, places = self._search(queries, some, min(k, len(some)))
            found.append((scores, places + first))
        return torch.cat([s for s, _ in found], dim=1), torch.cat([p for _, p in found], dim=1)


def search_allowed(
    queries: torch.Tensor, keys: Keys, k: int, struck: Strike
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``KeyIndex.search``, among all keys but those struck out: exact, by brute force."""
    found = []
    at_once = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(queries)))
    for first in range(0, keys.used, at_once):
        places = torch.arange(first, min(first + at_once, keys.used), device=queries.device)
        barred = struck(places) | ~keys.answers(places)
        scores = (queries @ keys.unit(places).T).masked_fill(barred, -torch.inf)
        best = scores.topk(min(k + SURPLUS, len(places)), dim=1)
        # Scores of NaN are not above it either.
        found.append((best.indices + first).masked_fill(~(best.values > -torch.inf), NO_PLACE))
    return rank_again(queries, keys, torch.cat(found, dim=1), k)


def rank_again(
    queries: torch.Tensor, keys: Keys, places: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best ``k`` of the candidates at ``places`` ``(B, m)``, by float32 products with the keys.

    As ``KeyIndex.search`` returns them, where ``places`` may hold NO_PLACE and m may be smaller
    or larger than k. Of equal scores the lower place comes first: so one ring and several parts of
    it choose alike.
    """
    if places.shape[1] < k:
        missing = places.new_full((len(places), k - places.shape[1]), NO_PLACE)
        places = torch.cat([places, missing], dim=1)
    places = places.sort(dim=1).values
    rows = max(1, RANKED_AT_ONCE // (places.shape[1] * keys.dim))
    scores = (
        torch.cat(
            [
                torch.einsum("bd,bmd->bm", some, keys.unit(at.clamp(min=0)))
                for some, at in zip(queries.split(rows), places.split(rows), strict=True)
            ]
        )
        if len(queries)
        else queries.new_zeros(places.shape)
    )
    scores = scores.masked_fill(places == NO_PLACE, -torch.inf)
    best = scores.sort(dim=1, descending=True, stable=True)
    return best.values[:, :k], places.gather(1, best.indices)[:, :k]
