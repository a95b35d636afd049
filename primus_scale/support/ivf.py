"""Approximate search in main memory: keys in lists by their nearest centroid, few lists searched.

Inverted lists as in "Video Google" (Sivic and Zisserman, ICCV 2003), by FAISS. K-means finds the
centroids. A key is in the list of its nearest centroid, and a query searches the lists of its
``PROBES`` nearest centroids only. The lists hold a second copy of the keys, in float16.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

import torch

from primus_scale.support.background import run_in_thread, still_needed
from primus_scale.support.keys import FlatIndex, Keys, rank_again
from primus_scale.support.search import import_faiss

# Measured (benchmarks/recall.py; queries near one of 1 M clustered keys of width 512): recall@1
# is 0.998. With half the lists, or k-means on half the points, it falls towards 0.98; with twice
# the probes it is 0.999, and a search takes nearly twice as long.
LISTS_PER_ROOT = 4.0  # lists for each square root of the number of keys
PROBES = 16
FLAT_BELOW = 2**15  # keys; up to this number brute force is as quick
POINTS_PER_LIST = 40  # keys that k-means uses for each list
ITERATIONS = 10  # of k-means
SEED = 0
PUT_AT_ONCE = 2**14  # keys put into lists at a time
SMALL_REST = 2**10  # rows written while lists are built: so few are added when these come into use


class InvertedLists:
    """FAISS's inverted lists over vectors with numbers, in main memory."""

    def __init__(self, sample: torch.Tensor, count: int) -> None:
        """``count`` empty lists, with centroids of ``sample`` ``(n, D)`` float32, n >= count."""
        faiss = import_faiss()
        dim = sample.shape[1]
        means = faiss.Kmeans(
            dim, count, niter=1, spherical=True, seed=SEED, min_points_per_centroid=1
        )
        for _ in range(ITERATIONS):
            means.train(sample.numpy(), init_centroids=means.centroids)
            if not still_needed():
                break
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(means.centroids)
        self._faiss = faiss
        self._index = faiss.IndexIVFScalarQuantizer(
            quantizer,
            dim,
            count,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # store the vectors, not their differences from the centroid
        )
        self._index.train(means.centroids)  # float16 needs no training, but FAISS requires it
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)
        self._index.nprobe = PROBES

    def put(self, numbers: torch.Tensor, vectors: torch.Tensor) -> None:
        """Add ``vectors`` ``(n, D)`` float32 with ``numbers`` ``(n,)`` int64."""
        self._index.add_with_ids(vectors.numpy(), numbers.numpy())

    def remove(self, numbers: torch.Tensor) -> None:
        """Remove those of ``numbers`` that are in the lists."""
        # With this selector of FAISS the time depends on the number of removed vectors only.
        self._index.remove_ids(self._faiss.IDSelectorArray(numbers.numpy()))

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and numbers of the best ``k``, each ``(B, k)``; number -1 where there are fewer.

        queries ``(B, D)`` float32; scores are inner products with the vectors in float16.
        """
        scores, numbers = self._index.search(queries.numpy(), k)
        return torch.from_numpy(scores), torch.from_numpy(numbers)


class IvfIndex:
    """Implements ``KeyIndex`` with inverted lists.

    Below ``FLAT_BELOW`` keys, and until the first lists are ready, searches use brute force. The
    lists are built again once as many rows have been written as they were built from. So the
    number of lists follows the number of keys, and the centroids follow the embeddings, which
    change while the encoder trains. A search starts the building. Memory in addition to the keys:
    2 bytes an element, twice that while new lists are built. All methods are called from one
    thread.
    """

    def __init__(self, keys: Keys, *, wait: bool) -> None:
        self._keys, self._wait = keys, wait
        self._flat = FlatIndex(keys, "faiss")
        self._lists: InvertedLists | None = None
        self._building: Future[InvertedLists] | None = None
        self._written_meanwhile: deque[torch.Tensor] = deque()  # places, since building started
        self._written = 0  # rows written since the last building started
        self._rebuild_after = FLAT_BELOW  # rows written until lists are built again

    @property
    def learning(self) -> bool:
        """Whether new lists are being built."""
        return self._building is not None and not self._building.done()

    def written(self, places: torch.Tensor) -> None:
        """See ``KeyIndex.written``."""
        self._written += len(places)
        if self._lists is not None:
            self._put(self._lists, places)
        if self._building is not None:
            self._written_meanwhile.append(places)
            self._use_built()

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``KeyIndex.search``."""
        if self._building is None and self._written >= self._rebuild_after:
            self._start_building()
        self._use_built()
        if self._lists is None:
            return self._flat.search(queries, k)
        _, places = self._lists.search(queries, k)
        return rank_again(queries, self._keys, places, k)

    def _start_building(self) -> None:
        places = answering(self._keys, 0, self._keys.used)
        self._written, self._rebuild_after = 0, max(len(places), FLAT_BELOW)
        if len(places) < FLAT_BELOW:
            self._lists = None
            return
        faiss = import_faiss()
        threads = faiss.omp_get_max_threads()

        def make() -> InvertedLists:
            faiss.omp_set_num_threads(threads)  # OpenMP has a setting for each thread
            return self._build(places)

        self._building = run_in_thread(make, wait=self._wait)

    def _build(self, places: torch.Tensor) -> InvertedLists:
        """Lists of the keys at ``places``; in the thread that builds, unless ``wait``."""
        count = lists_for(len(places))
        lists = InvertedLists(self._keys.unit(sample_of(places, count)), count)
        # A row that is written while it is read here is added again from ``_written_meanwhile``.
        while len(places) > SMALL_REST and still_needed():
            self._put(lists, places)
            places = self._take_written()
        self._put(lists, places)
        return lists

    def _use_built(self) -> None:
        """Use the new lists, if they are ready."""
        if self._building is None or not self._building.done():
            return
        self._lists, self._building = self._building.result(), None
        self._put(self._lists, self._take_written())

    def _take_written(self) -> torch.Tensor:
        """The places that were written while the lists were being built, once each."""
        some = [torch.empty(0, dtype=torch.int64)]
        while self._written_meanwhile:
            some.append(self._written_meanwhile.popleft())
        return torch.cat(some).unique()

    def _put(self, lists: InvertedLists, places: torch.Tensor) -> None:
        """Update lists with the rows at ``places``."""
        for some in places.split(PUT_AT_ONCE):
            lists.remove(some)
            some = some[self._keys.answers(some)]
            lists.put(some, self._keys.unit(some))


def answering(keys: Keys, first: int, end: int) -> torch.Tensor:
    """The places from ``first`` to before ``end`` whose entries answer queries, ``(n,)`` int64."""
    places = torch.arange(first, end, device=keys.matrix.device)
    return places[keys.answers(places)]


def lists_for(count: int) -> int:
    """The number of lists for ``count`` keys."""
    return int(LISTS_PER_ROOT * count**0.5)


def sample_of(places: torch.Tensor, lists: int) -> torch.Tensor:
    """A sample of ``places`` for the k-means of ``lists`` lists; the same for the same places."""
    draws = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(places), generator=draws)[: POINTS_PER_LIST * lists]
    return places[chosen.to(places.device)]
