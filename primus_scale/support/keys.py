"""The keys of one modality in a part of the ring, and the search for the most similar keys.

``Keys`` are the rows that a part of the ring holds, and a ``KeyIndex`` searches them. Brute force
(FAISS, or torch in tests) needs no copy. Approximate indexes (``ivf``, ``segments``) have data of
their own, and rank the candidates that they find again by the keys, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from primus_scale.support.search import SCORES_AT_ONCE, SearchBackend, make_search

# flat: brute force; ivf and cagra are approximate; auto: flat or ivf, see ``choose_index``
IndexKind = Literal["auto", "flat", "ivf", "cagra"]
# When an approximate index is built: at once, in the call that needs it; or in the background, and
# then used after a fixed number of rows ("on_time"), or when it is ready.
Learning = Literal["at_once", "on_time", "when_ready"]

# From places ``(n,)`` or ``(B, n)`` to ``(B, n)`` bool: True where query b must not find the entry.
ExclusionTest = Callable[[torch.Tensor], torch.Tensor]

# A key is the embedding of an entry, by which queries find it. A row of the keys has one element
# more: 0 where the entry answers queries of that modality, ABSENT where it does not. In queries
# this element is 1. So an entry that does not answer has a smaller inner product than any that does
# (cosines are at least -1), and the ring is searched without copying the entries that answer.
ABSENT = -4.0
STORAGE = {"float32": torch.float32, "float16": torch.float16}  # of keys, by support.storage
NO_PLACE = -1  # instead of a place, where a search found nothing
# Candidates in addition to the k best. The scores of an index may be a little wrong (float16 on a
# GPU, equal keys in another order), so the candidates are ranked again in float32.
SURPLUS = 16
ROWS_AT_ONCE = 2**16  # of keys compared at a time
# Float16 keys that are made float32 at a time, into memory that is used again and so stays in the
# cache. For 64 k keys of width 512 this takes 16 ms; with fresh memory for all of them, 85 ms.
CONVERTED_AT_ONCE = 2**12
RANKED_AT_ONCE = 2**24  # elements of the keys gathered to rank candidates, 64 MB


@dataclass
class Keys:
    """The embeddings of one modality in a part of the ring, a row for each place (see ``part``).

    matrix ``(places, D + 1)`` float32 or float16: unit vectors, then 0 or ABSENT. used: only places
    below this number were ever written.
    """

    matrix: torch.Tensor
    used: int = 0

    @classmethod
    def empty(cls, places: int, dim: int, dtype: torch.dtype, device: torch.device | str) -> Keys:
        """Memory for ``places`` keys of width ``dim``, none written yet."""
        return cls(torch.zeros(places, dim + 1, dtype=dtype, device=device))

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.matrix.shape[1] - 1

    def raise_used(self, end: int) -> None:
        """Raise ``used`` to at least ``end``. Places below it, if not written, answer no query."""
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
    """Finds the keys that are most similar to queries."""

    @property
    def is_building(self) -> bool:
        """Whether the index is being built in the background.

        Meanwhile searches use the index before it, or brute force.
        """

    def written(self, places: torch.Tensor) -> None:
        """Note that the rows at ``places`` ``(n,)`` int64, all different, have new keys."""

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and places of the ``k`` best keys that answer, best first.

        queries ``(B, D)`` float32, of unit length. Scores ``(B, k)`` float32 are inner products
        with the stored keys. Places ``(B, k)`` int64 are NO_PLACE where there are fewer keys.
        """


class FlatIndex:
    """Brute force over the keys: exact, without data of its own."""

    def __init__(self, keys: Keys, backend: SearchBackend) -> None:
        self._keys = keys
        self._search = make_search(backend, keys.matrix.device)

    @property
    def is_building(self) -> bool:
        """False: there is nothing to build."""
        return False

    def written(self, places: torch.Tensor) -> None:
        """Nothing to do: searches read the keys directly."""

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``KeyIndex.search``."""
        return self.search_between(queries, k, 0, self._keys.used)

    def search_between(
        self, queries: torch.Tensor, k: int, first: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``search``, among the places from ``first`` to before ``end``, at most ``used``."""
        padded = torch.cat([queries, torch.ones_like(queries[:, :1])], dim=1)
        keys = self._keys.matrix[first:end]
        if keys.dtype == torch.float32 or keys.is_cuda:
            scores, places = self._search(padded.to(keys.dtype), keys, min(k, len(keys)))
        else:
            scores, places = self._search_in_float32(padded, keys, k)
        # A comparison with NaN is False, so scores of NaN give no place either.
        places = (places + first).masked_fill(~(scores > ABSENT / 2), NO_PLACE)
        return rank_again(queries, self._keys, places, k)

    def _search_in_float32(
        self, queries: torch.Tensor, keys: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search float16 keys on a CPU in pieces: FAISS takes only float32 there."""
        found = []
        memory = queries.new_empty(min(CONVERTED_AT_ONCE, len(keys)), keys.shape[1])
        for first in range(0, len(keys), CONVERTED_AT_ONCE):
            some = keys[first : first + CONVERTED_AT_ONCE]
            some = memory[: len(some)].copy_(some)
            scores, places = self._search(queries, some, min(k, len(some)))
            found.append((scores, places + first))
        return torch.cat([s for s, _ in found], dim=1), torch.cat([p for _, p in found], dim=1)


def search_allowed(
    queries: torch.Tensor, keys: Keys, places: torch.Tensor, k: int, is_excluded: ExclusionTest
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``KeyIndex.search``, among the keys at ``places`` ``(n,)`` that are not excluded.

    It is exact, by brute force.
    """
    found = []
    at_once = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(queries)))
    for some in places.split(at_once):
        excluded = is_excluded(some) | ~keys.answers(some)
        scores = (queries @ keys.unit(some).T).masked_fill(excluded, -torch.inf)
        best = scores.topk(min(k + SURPLUS, len(some)), dim=1)
        # A comparison with NaN is False, so scores of NaN give no place either.
        found.append(some[best.indices].masked_fill(~(best.values > -torch.inf), NO_PLACE))
    return rank_again(queries, keys, torch.cat(found, dim=1), k)


def rows_by_session(
    asking: torch.Tensor, held: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of ``asking`` and of ``held`` that are of one session, for each that both have.

    asking ``(B,)`` and held ``(n,)`` int64: sessions. Yields row numbers, int64, in rising order.
    """
    sessions, of_asking = asking.unique(return_inverse=True)
    of_held = torch.searchsorted(sessions, held).clamp(max=len(sessions) - 1)
    rows_held = (sessions[of_held] == held).nonzero()[:, 0]
    of_held = of_held[rows_held]
    rows_held = rows_held[of_held.argsort(stable=True)]
    rows_asking = of_asking.argsort(stable=True)
    counts = (each.bincount(minlength=len(sessions)).tolist() for each in (of_asking, of_held))
    for pair in zip(*map(torch.split, (rows_asking, rows_held), counts), strict=True):
        if len(pair[1]):
            yield pair


def rank_again(
    queries: torch.Tensor, keys: Keys, places: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best ``k`` of the candidates at ``places`` ``(B, m)``, by float32 products with the keys.

    Returns scores and places as ``KeyIndex.search``. ``places`` may hold NO_PLACE, and m may be
    smaller or larger than k. Of equal scores the lower place comes first, so that one ring and
    several parts of it give the same result.
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
