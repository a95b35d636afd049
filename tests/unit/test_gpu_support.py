"""The support set in device memory: brute force, and segments with indexes of FAISS on a GPU.

How long lookups in 10 M entries take:
``python -m benchmarks.recall --device cuda --index cagra --entries 10000000 --batch 4096``.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.recall import ClusteredKeys, measure_recall
from primus_scale.sample import Origin, fill_times, unknown_time
from primus_scale.support import Exclusion, RingSupportSet, SupportEntries, SupportSpec, segments
from primus_scale.support.keys import FlatIndex
from primus_scale.support.search import import_faiss
from primus_scale.support.segments import SegmentIndex
from tests.conftest import require
from tests.exclusions import only_uids

pytestmark = pytest.mark.gpu

DIMS = {"imu": 64, "video": 128}


def require_kind(kind: str) -> None:
    faiss = import_faiss()
    require(faiss.get_num_gpus() > 0, "the GPU build of FAISS is not installed")
    require(
        kind != "cagra" or "CUVS" in faiss.get_compile_options(),
        "FAISS is built without cuVS",
    )


def entries(first: int, count: int) -> SupportEntries:
    draws = torch.Generator().manual_seed(first)
    uid = torch.arange(first, first + count)
    return SupportEntries(
        uid,
        uid // 10,
        uid // 20,
        {name: torch.randn(count, dim, generator=draws) for name, dim in DIMS.items()},
        {
            "imu": torch.ones(count, dtype=torch.bool),
            "video": torch.rand(count, generator=draws) < 0.8,
        },
    )


def on_cuda(some: SupportEntries) -> SupportEntries:
    return SupportEntries(
        some.uid.cuda(),
        some.recording.cuda(),
        some.session.cuda(),
        {name: vectors.cuda() for name, vectors in some.embeddings.items()},
        {name: present.cuda() for name, present in some.present.items()},
        some.start_s.cuda(),
    )


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_ring_on_a_gpu_equals_torch_on_a_cpu(storage):
    spec = {"capacity": 20_000, "dims": DIMS, "minimum_fill": 4, "storage": storage}
    ring = RingSupportSet(SupportSpec(**spec), "cuda")
    plain = RingSupportSet(SupportSpec(**spec, backend="torch"))
    for first in range(0, 30_000, 6_000):  # goes round
        some = entries(first, 6_000)
        ring.enqueue(on_cuda(some))
        plain.enqueue(some)
    own = torch.arange(15_000, 15_256)
    for modality, dim in DIMS.items():
        queries = torch.randn(256, dim, generator=torch.Generator().manual_seed(1))
        found = ring.search(queries.cuda(), 4, only_uids(own.cuda()), modality).to("cpu")
        expected = plain.search(queries, 4, only_uids(own), modality)
        assert found.valid.all() and expected.valid.all()
        torch.testing.assert_close(found.score, expected.score, rtol=0, atol=1e-5)
        alike = (found.uid == expected.uid).float().mean()  # but for scores equal to 1e-5
        assert alike > 0.999


@pytest.mark.parametrize("index", ["flat", "ivf", "cagra"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_session_on_a_gpu_is_searched_exactly_with_every_index(storage, index, monkeypatch):
    if index != "flat":
        require_kind(index)
    monkeypatch.setattr(segments, "LEAST_PLACES", 2**13)
    spec = {"capacity": 20_000, "dims": DIMS, "minimum_fill": 4, "storage": storage}
    ring = RingSupportSet(SupportSpec(**spec, index=index), "cuda")
    plain = RingSupportSet(SupportSpec(**spec, backend="torch"))
    for first in range(0, 30_000, 6_000):  # goes round
        some = entries(first, 6_000)
        ring.enqueue(on_cuda(some))
        plain.enqueue(some)
    uid = torch.arange(14_990, 15_246)
    start_s = fill_times(unknown_time(), uid)
    own = Exclusion(Origin(uid, uid // 10, uid // 20, start_s), -1.0, "other")
    on_gpu = own._replace(origin=Origin(*(column.cuda() for column in own.origin)))
    for modality, dim in DIMS.items():
        queries = torch.randn(256, dim, generator=torch.Generator().manual_seed(1))
        found = ring.search(queries.cuda(), 4, on_gpu, modality).to("cpu")
        expected = plain.search(queries, 4, own, modality)
        assert torch.equal(found.valid, expected.valid) and found.valid.any()
        at = found.valid
        assert (found.session == own.origin.session[:, None])[at].all()
        torch.testing.assert_close(found.score[at], expected.score[at], rtol=0, atol=1e-5)
        assert (found.uid == expected.uid)[at].float().mean() > 0.999


@pytest.mark.parametrize("kind", ["ivf", "cagra"])
def test_segments_on_a_gpu_find_the_nearest_and_follow_the_ring(kind, monkeypatch):
    require_kind(kind)
    monkeypatch.setattr(segments, "LEAST_PLACES", 2**15)
    data = ClusteredKeys(2**18, 256, device="cuda")
    index = SegmentIndex(data.keys, kind, wait=True)
    everything = torch.arange(2**18, device="cuda")
    index.written(everything)
    exact = FlatIndex(data.keys, "torch")
    for first in (0, 30_000, 60_000):
        queries = data.near(2048)
        _, found = index.search(queries, 17)
        _, expected = exact.search(queries, 1)
        assert (found[:, 0] == expected[:, 0]).float().mean() >= 0.98
        overwritten = everything[first : first + 30_000]
        data.write(overwritten)
        index.written(overwritten)
        _, found = index.search(data.keys.unit(overwritten[-512:]), 17)
        assert torch.equal(found[:, 0], overwritten[-512:])


@pytest.mark.parametrize("kind", ["ivf", "cagra"])
def test_segments_learn_in_the_background_on_a_gpu(kind, monkeypatch):
    require_kind(kind)
    monkeypatch.setattr(segments, "LEAST_PLACES", 2**15)
    data = ClusteredKeys(2**17, 128, device="cuda")
    index = SegmentIndex(data.keys, kind, wait=False)
    index.written(torch.arange(2**17, device="cuda"))
    exact = FlatIndex(data.keys, "torch")
    learning = True
    while learning:
        queries = data.near(256)
        _, found = index.search(queries, 17)
        _, expected = exact.search(queries, 1)
        assert (found[:, 0] == expected[:, 0]).float().mean() >= 0.95
        learning = index.is_building


@pytest.mark.parametrize("kind", ["ivf", "cagra"])
def test_recall_at_a_million_entries_on_a_gpu(kind):
    require_kind(kind)
    figures = measure_recall(2**20, kind=kind, batch=4096, device="cuda")
    print(figures)
    assert figures["recall_near"] >= 0.98
