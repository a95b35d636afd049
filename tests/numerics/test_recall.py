"""Approximate indexes, at their default settings, find nearly always what exact search finds.

The same at 1 M entries, which takes minutes: ``python -m benchmarks.recall``.
"""

from __future__ import annotations

import faiss
import pytest
import torch

from benchmarks.recall import ClusteredKeys
from primus_scale.support import segments
from primus_scale.support.ivf import IvfIndex
from primus_scale.support.keys import FlatIndex, KeyIndex
from primus_scale.support.segments import SegmentIndex

ENTRIES, DIM, CLUSTERS, QUERIES = 50_000, 256, 5_000, 1024
WANTED = 17  # candidates that the ring asks for in order to return one


def recall(index: KeyIndex, data: ClusteredKeys) -> float:
    queries = data.near(QUERIES)
    _, found = index.search(queries, WANTED)
    _, expected = FlatIndex(data.keys, "faiss").search(queries, 1)
    return (found[:, 0] == expected[:, 0]).float().mean().item()


def searched_by_lists() -> int:
    """Queries answered by inverted lists so far, and not by brute force."""
    return faiss.cvar.indexIVF_stats.nq


@pytest.fixture
def data() -> ClusteredKeys:
    return ClusteredKeys(ENTRIES, DIM, clusters=CLUSTERS)


def test_inverted_lists_find_the_nearest_also_when_the_ring_has_drifted(data):
    index = IvfIndex(data.keys, learning="at_once")
    index.written(torch.arange(ENTRIES))
    before = searched_by_lists()
    assert recall(index, data) >= 0.98
    drifted = ClusteredKeys(ENTRIES, DIM, clusters=CLUSTERS, seed=1)
    for places in torch.arange(ENTRIES).split(5_000):
        data.keys.matrix[places] = drifted.keys.matrix[places]
        index.written(places)
    assert recall(index, drifted) >= 0.98
    assert searched_by_lists() == before + 2 * QUERIES


def test_segments_find_the_nearest(data, monkeypatch):
    monkeypatch.setattr(segments, "LEAST_PLACES", ENTRIES // 5)
    index = SegmentIndex(data.keys, "ivf", wait=True)
    index.written(torch.arange(ENTRIES))
    before = searched_by_lists()
    assert recall(index, data) >= 0.98
    assert searched_by_lists() == before + 4 * QUERIES  # the fifth is being written
