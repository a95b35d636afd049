"""Approximate search in device memory: the ring in segments, each with an index of its own.

An index on a GPU cannot remove single entries. So the ring is divided into segments of consecutive
places. A segment that is no longer written gets an index, which does not change. When the ring
overwrites the first of its rows, the whole index is dropped. Rows without an index, including those
of the segment that is being written, are searched by brute force. So a search sees all entries, in
whatever order rows are written.

Inverted lists (``ivf``) or CAGRA graphs (``cagra``; Ootomo et al., arXiv 2308.15136), by FAISS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch

from primus_scale.support.background import run_in_thread
from primus_scale.support.ivf import PROBES, InvertedLists, answering, lists_for, sample_of
from primus_scale.support.keys import NO_PLACE, FlatIndex, IndexKind, Keys, rank_again
from primus_scale.support.search import import_faiss

# The search of one index: (queries (B, D) float32, k) -> scores and row numbers of the best k, or
# of as many as the index can find: (B, k') each, row -1 where there are fewer.
Find = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
Build = Callable[[torch.Tensor], Find]  # from vectors (n, D) float32 to the search among them

SEGMENTS = 16  # of a large set: one of them is searched by brute force at any time
LEAST_PLACES = 2**17  # in a segment
LEAST_INDEXED = 2**12  # answering entries; for fewer no index is built
SCRATCH_BYTES = 2**28  # of device memory, which FAISS may keep for each segment
CAGRA_FINDS = 64  # candidates that a search of a graph keeps, with FAISS's default settings


class _Indexed(NamedTuple):
    """The index of a segment: its row ``i`` is the entry at ``places[i]``."""

    places: torch.Tensor
    find: Find


class _Segment:
    """Places from ``first`` to before ``end``."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end
        self.writes = 0
        self.indexed_writes = 0  # value of ``writes`` when its index was built, or found needless
        self.index: _Indexed | None = None


class SegmentIndex:
    """Implements ``KeyIndex`` with segments.

    The first search after a segment was written starts the building of its index, one at a time,
    in a thread unless ``wait``. Memory in addition to the keys: a copy of the vectors, in float16
    (``ivf``) or in float32 with a graph of 256 bytes an entry (``cagra``). All methods are called
    from one thread. ValueError where FAISS has no index of the kind on the keys' device.
    """

    def __init__(self, keys: Keys, kind: IndexKind, *, wait: bool) -> None:
        self._keys, self._wait = keys, wait
        self._build = choose_build(kind, keys.matrix.device)
        self._flat = FlatIndex(keys, "faiss")
        places = len(keys.matrix)
        self._size = max(-(-places // SEGMENTS), LEAST_PLACES)
        self._segments = [
            _Segment(first, min(first + self._size, places))
            for first in range(0, places, self._size)
        ]
        self._last_written = self._segments[0]
        self._building: tuple[_Segment, int, Future[_Indexed | None]] | None = None

    @property
    def is_building(self) -> bool:
        """Whether an index is being built."""
        return self._building is not None and not self._building[2].done()

    def written(self, places: torch.Tensor) -> None:
        """See ``KeyIndex.written``."""
        if not len(places):
            return
        for number in (places // self._size).unique().tolist():
            segment = self._segments[number]
            segment.writes += 1
            segment.index = None
        self._last_written = self._segments[int(places[-1]) // self._size]

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``KeyIndex.search``."""
        self._advance()
        found = [
            self._flat.search_between(queries, k, first, end)
            for first, end in self._without_index()
        ]
        for segment in self._segments:
            if segment.index is not None:
                scores, rows = segment.index.find(queries, min(k, len(segment.index.places)))
                none = (rows < 0) | scores.isnan()
                places = segment.index.places[rows].masked_fill(none, NO_PLACE)
                found.append((scores.masked_fill(none, -torch.inf), places))
        scores, places = (torch.cat(columns, dim=1) for columns in zip(*found, strict=True))
        best = scores.topk(min(k, scores.shape[1]), dim=1).indices
        return rank_again(queries, self._keys, places.gather(1, best), k)

    def _advance(self) -> None:
        """Use an index that is ready, and start to build the next one.

        With ``wait`` an index is ready at once: the loop builds all that are due.
        """
        while True:
            if self._building is not None:
                segment, writes, made = self._building
                if not made.done():
                    return
                self._building = None
                if segment.writes == writes:  # otherwise rows were overwritten while it was built
                    segment.index, segment.indexed_writes = made.result(), writes
            due = next(filter(self._needs_index, self._segments), None)
            if due is None:
                return
            self._building = due, due.writes, self._start_building(due)

    def _needs_index(self, segment: _Segment) -> bool:
        return segment is not self._last_written and segment.indexed_writes < segment.writes

    def _start_building(self, segment: _Segment) -> Future[_Indexed | None]:
        places = answering(self._keys, segment.first, min(segment.end, self._keys.used))

        def make() -> _Indexed | None:
            if len(places) < LEAST_INDEXED:
                return None
            with torch.cuda.device_of(places):  # a new thread starts with the default device
                return _Indexed(places, self._build(self._keys.unit(places)))

        return run_in_thread(make, wait=self._wait)

    def _without_index(self) -> Iterator[tuple[int, int]]:
        """Ranges of written places without an index; adjacent ranges are joined."""
        first = 0
        for segment in self._segments:
            if segment.index is not None:
                if first < segment.first:
                    yield first, segment.first
                first = segment.end
        if first < self._keys.used:
            yield first, self._keys.used


def choose_build(kind: IndexKind, device: torch.device) -> Build:
    """The function that builds the index on the device; ValueError where FAISS has none."""
    if device.type != "cuda":
        if kind == "cagra":
            raise ValueError(
                "support.index=cagra searches device memory; set support.gpus_per_actor or "
                "train.device=cuda, or support.index=ivf"
            )
        return build_ivf_on_cpu
    faiss = import_faiss()
    if faiss.get_num_gpus() == 0:
        raise ValueError(
            f"support.index={kind} on CUDA needs a GPU build of faiss: pip uninstall faiss-cpu, "
            "then pip install 'primus-scale[gpu]', or set support.index=flat"
        )
    if kind == "ivf":
        return build_ivf_on_gpu
    if "CUVS" not in faiss.get_compile_options():
        raise ValueError(
            "support.index=cagra needs a build of faiss with cuVS: pip uninstall faiss-gpu-cu12, "
            "then pip install 'primus-scale[gpu-cuvs]', or set support.index=ivf"
        )
    return build_cagra


def build_ivf_on_cpu(vectors: torch.Tensor) -> Find:
    """Inverted lists in main memory."""
    rows = torch.arange(len(vectors))
    count = lists_for(len(vectors))
    lists = InvertedLists(vectors[sample_of(rows, count)], count)
    lists.put(rows, vectors)
    return lists.search


def build_ivf_on_gpu(vectors: torch.Tensor) -> Find:
    """Inverted lists in device memory, in float16."""
    faiss, resources, device = _faiss_on_gpu(vectors)
    config = faiss.GpuIndexIVFScalarQuantizerConfig()
    config.device = device
    count = lists_for(len(vectors))
    index = faiss.GpuIndexIVFScalarQuantizer(
        resources,
        vectors.shape[1],
        count,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # store the vectors, not their differences from the centroid
        config,
    )
    index.train(vectors[sample_of(torch.arange(len(vectors), device=vectors.device), count)])
    index.add(vectors)
    index.nprobe = PROBES
    return index.search


def build_cagra(vectors: torch.Tensor) -> Find:
    """A CAGRA graph in device memory.

    It is in float32: ``faiss.contrib.torch_utils`` (1.15) cannot search one in float16.
    """
    faiss, resources, device = _faiss_on_gpu(vectors)
    config = faiss.GpuIndexCagraConfig()
    config.device = device
    index = faiss.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    index.train(vectors)

    def find(queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert vectors.is_cuda  # the graph refers to their memory: they must live as long as it
        return index.search(queries, min(k, CAGRA_FINDS))

    return find


def _faiss_on_gpu(vectors: torch.Tensor) -> tuple[Any, Any, int]:
    """FAISS with support of torch tensors, resources for one index, and the device's number.

    Each index has its own resources: two threads must not use the same at a time, and one index is
    searched while the next one is built.
    """
    faiss = import_faiss()
    import faiss.contrib.torch_utils  # noqa: F811 - lets indexes take torch tensors

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    return faiss, resources, vectors.device.index
