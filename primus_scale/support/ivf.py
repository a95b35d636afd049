"""Approximate search in main memory: keys in lists by their nearest centroid, few lists searched.

Inverted lists as in "Video Google" (Sivic and Zisserman, ICCV 2003), by FAISS. K-means finds the
centroids. A key is in the list of its nearest centroid, and a query searches the lists of its
``PROBES`` nearest centroids only. The lists hold a second copy of the keys, in float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import torch

from primus_scale.support.background import run_in_thread, still_needed
from primus_scale.support.keys import FlatIndex, Keys, Learning, rank_again
from primus_scale.support.search import import_faiss

# Measured (benchmarks/recall.py; queries near one of 1 M clustered keys of width 512): recall@1
# is 0.998. With half the lists, or k-means on half the points, it falls towards 0.98; with twice
# the probes it is 0.999, and a search takes nearly twice as long.
LISTS_PER_ROOT = 4.0  # lists for each square root of the number of keys
PROBES = 16
FLAT_BELOW = 2**15  # below so many keys brute force is as quick
POINTS_PER_LIST = 40  # keys that k-means uses for each list
ITERATIONS = 10  # of k-means
SEED = 0
PUT_AT_ONCE = 2**14  # keys put into lists at a time
FILLED_PER_ROW = 4  # keys put into new lists for each row that is written or searched
# With "on_time": the share of the rows between two buildings after which new lists are filled.
LEARNING_SHARE = 1 / 16


class InvertedLists:
    """FAISS's inverted lists of numbered vectors, in main memory."""

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

    def save(self) -> torch.Tensor:
        """The lists, with their order, as bytes for ``load``."""
        return torch.from_numpy(self._faiss.serialize_index(self._index))

    @classmethod
    def load(cls, saved: torch.Tensor) -> InvertedLists:
        """The lists that ``save`` gave."""
        lists = cls.__new__(cls)
        lists._faiss = import_faiss()
        lists._index = lists._faiss.deserialize_index(saved.numpy())
        return lists

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
    change while the encoder trains.

    A building has two parts. First k-means finds centroids in a copy of a sample of the keys, in a
    thread unless ``learning`` is "at_once". Then each call puts the next keys into the new lists,
    ``FILLED_PER_ROW`` for each row that it writes or searches. Until this is done the old lists are
    searched. ``learning`` says when the second part begins: "when_ready", once the centroids are
    found; "on_time", after a fixed number of written rows, when a call waits for the centroids if
    it must.

    With "on_time" only written rows advance the building. They are the same on all ranks, while
    the queries differ. So what a search finds depends only on the rows written before it, and not
    on the speed of the machine or on the rank.

    Memory in addition to the keys: 2 bytes an element, twice that while new lists are built. All
    methods are called from one thread.
    """

    def __init__(self, keys: Keys, *, learning: Learning) -> None:
        self._keys, self._mode = keys, learning
        self._flat = FlatIndex(keys, "faiss")
        self._lists: InvertedLists | None = None
        self._training: Future[InvertedLists] | None = None
        self._sample: torch.Tensor | None = None  # the keys that k-means uses, while it runs
        self._sampled = 0  # number of keys that the sample is from
        self._filling: InvertedLists | None = None
        self._filled = 0  # places below it are in the lists that are being filled
        self._written = 0  # rows written since the last building started
        self._rebuild_after = FLAT_BELOW  # rows written until lists are built again

    @property
    def is_building(self) -> bool:
        """Whether k-means runs for new lists."""
        return self._training is not None and not self._training.done()

    @property
    def resumes(self) -> bool:
        """Whether it continues exactly from a saved ``state``; otherwise it is built again."""
        return self._mode == "on_time"

    def written(self, places: torch.Tensor) -> None:
        """See ``KeyIndex.written``."""
        if self._mode == "on_time":
            # Before these rows count: after rows are loaded, ``restore`` may bring their building.
            self._build_if_due()
        self._written += len(places)
        if self._lists is not None:
            self._put(self._lists, places)
        if self._filling is not None:
            self._put(self._filling, places[places < self._filled])
        self._advance(len(places))

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``KeyIndex.search``."""
        if self._mode != "on_time":
            self._build_if_due()
            self._advance(len(queries))
        if self._lists is None:
            return self._flat.search(queries, k)
        _, places = self._lists.search(queries, k)
        return rank_again(queries, self._keys, places, k)

    def state(self) -> dict[str, torch.Tensor]:
        """What ``restore`` needs beside the keys, to give the same answers to the same calls."""
        counts = [self._written, self._rebuild_after, self._filled, self._sampled]
        state = {"counts": torch.tensor(counts)}
        if self._lists is not None:
            state["lists"] = self._lists.save()
        if self._filling is not None:
            state["filling"] = self._filling.save()
        if self._sample is not None:
            state["sample"] = self._sample
        return state

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue as the index that gave ``state``; the keys must be those that it had.

        K-means that was not done starts again, on the same sample.
        """
        self._written, self._rebuild_after, self._filled, self._sampled = state["counts"].tolist()
        loaded = {
            name: InvertedLists.load(state[name]) for name in ("lists", "filling") if name in state
        }
        self._lists, self._filling = loaded.get("lists"), loaded.get("filling")
        self._training = self._sample = None
        if "sample" in state:
            self._train(state["sample"], self._sampled)

    def _build_if_due(self) -> None:
        building = self._training is not None or self._filling is not None
        if not building and self._written >= self._rebuild_after:
            self._start_building()

    def _start_building(self) -> None:
        places = answering(self._keys, 0, self._keys.used)
        self._written, self._rebuild_after = 0, max(len(places), FLAT_BELOW)
        if len(places) < FLAT_BELOW:
            self._lists = None
            return
        # A copy, since rows may be written meanwhile.
        self._train(self._keys.unit(sample_of(places, lists_for(len(places)))), len(places))

    def _train(self, sample: torch.Tensor, keys: int) -> None:
        """Start k-means on ``sample``, for the lists of ``keys`` keys."""
        faiss = import_faiss()
        threads = faiss.omp_get_max_threads()
        self._sample, self._sampled = sample, keys

        def train() -> InvertedLists:
            faiss.omp_set_num_threads(threads)  # OpenMP has a setting for each thread
            return InvertedLists(sample, lists_for(keys))

        self._training = run_in_thread(train, wait=self._mode == "at_once")

    def _advance(self, rows: int) -> None:
        """Go on with the building, as far as a call that writes or searches ``rows`` rows does."""
        if self._training is not None and self._may_fill():
            self._filling, self._filled = self._training.result(), 0
            self._training = self._sample = None
        if self._filling is None:
            return
        at_once = self._mode == "at_once"
        end = self._keys.used if at_once else self._filled + FILLED_PER_ROW * rows
        end = min(end, self._keys.used)
        self._put(self._filling, torch.arange(self._filled, end))
        self._filled = end
        if end == self._keys.used:
            self._lists, self._filling = self._filling, None

    def _may_fill(self) -> bool:
        """Whether the new lists may be filled: see ``learning``."""
        assert self._training is not None
        if self._mode == "on_time":
            return self._written >= LEARNING_SHARE * self._rebuild_after
        return self._training.done()

    def _put(self, lists: InvertedLists, places: torch.Tensor) -> None:
        """Replace the rows at ``places`` in the lists by their new keys."""
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
