"""Approximate indexes keep account of every row: searched in full, they find what torch finds.

Here all lists are searched (``PROBES``), so that nothing but a mistake in keeping account makes a
difference; how much the default settings find is in tests/numerics/test_recall.py.
"""

from __future__ import annotations

import threading
import time

import faiss
import pytest
import torch
from torch.nn import functional

from primus_scale.support import RingSupportSet, SupportEntries, SupportSpec, ivf, part, segments
from primus_scale.support.index import build_index
from primus_scale.support.ivf import IvfIndex
from primus_scale.support.keys import ABSENT, NO_PLACE, Keys
from primus_scale.support.segments import SegmentIndex, choose_build
from tests.conftest import require
from tests.exclusions import only_uids

PLACES, DIM = 3000, 24
DTYPES = [torch.float32, torch.float16]


@pytest.fixture(autouse=True)
def small_indexes(monkeypatch):
    """Indexes of some hundred keys, all of whose lists are searched."""
    monkeypatch.setattr(ivf, "FLAT_BELOW", 500)
    monkeypatch.setattr(ivf, "PROBES", 10_000)
    monkeypatch.setattr(segments, "LEAST_PLACES", 400)
    monkeypatch.setattr(segments, "LEAST_INDEXED", 100)


@pytest.fixture(autouse=True)
def one_thread():
    """So small an amount of work takes longer with several."""
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before[0])
    torch.set_num_threads(before[1])


def make_ivf(keys: Keys, wait: bool = True) -> IvfIndex:
    return IvfIndex(keys, learning="at_once" if wait else "when_ready")


def make_segments(keys: Keys, wait: bool = True) -> SegmentIndex:
    return SegmentIndex(keys, "ivf", wait=wait)


KINDS = [make_ivf, make_segments]


class Rows:
    """Keys, an index over them, and next to them what the keys should be."""

    def __init__(self, make, dtype=torch.float32, wait=True, places=PLACES, dim=DIM):
        self.draws = torch.Generator().manual_seed(0)
        self.keys = Keys.empty(places, dim, dtype, "cpu")
        self.index = make(self.keys, wait)
        self.vectors = torch.zeros(places, dim)
        self.answers = torch.zeros(places, dtype=torch.bool)
        self.next = 0

    def unit(self, count: int) -> torch.Tensor:
        return functional.normalize(torch.randn(count, self.keys.dim, generator=self.draws), dim=1)

    def write(self, places: torch.Tensor, share: float = 0.8) -> None:
        """New vectors at ``places``, of which a share answers queries."""
        vectors = self.unit(len(places)).to(self.keys.matrix.dtype)
        answers = torch.rand(len(places), generator=self.draws) < share
        self.vectors[places], self.answers[places] = vectors.float(), answers
        column = torch.where(answers, 0.0, ABSENT)[:, None].to(vectors.dtype)
        self.keys.matrix[places] = torch.cat([vectors, column], dim=1)
        self.keys.used = max(self.keys.used, int(places.max()) + 1)
        self.index.written(places)

    def go_on(self, count: int, share: float = 0.8) -> None:
        """The next rows of the ring."""
        self.write((self.next + torch.arange(count)) % len(self.vectors), share)
        self.next += count

    def check_all_are_held(self) -> None:
        """Each key that answers finds itself, in the list of its centroid."""
        held = self.answers.nonzero()[:, 0]
        _, places = self.index.search(self.vectors[held], 1)
        assert torch.equal(places[:, 0], held)

    def check(self, k: int = 15, fetched: int = 20) -> None:
        """The best ``k`` of ``fetched`` are what torch finds.

        Fewer, since lists in float16 may take an entry of about the last one's score for it.
        """
        queries = self.unit(16)
        scores, places = self.index.search(queries, fetched)
        assert scores.shape == places.shape == (16, fetched)
        exact = (queries.double() @ self.vectors.double().T).masked_fill(~self.answers, -torch.inf)
        expected = exact.topk(k, dim=1).values.float()
        torch.testing.assert_close(scores[:, :k], expected, rtol=0, atol=1e-6)
        found = exact.gather(1, places.clamp(min=0)).masked_fill(places == NO_PLACE, -torch.inf)
        torch.testing.assert_close(found[:, :k].float(), expected, rtol=0, atol=1e-6)
        for row in places.tolist():
            held = [place for place in row if place != NO_PLACE]
            assert len(set(held)) == len(held)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", KINDS)
def test_index_follows_the_ring_as_it_fills_and_goes_round(make, dtype):
    rows = Rows(make, dtype)
    for count in (30, 300, 171, 500, 999, 800, 200, 1, 700, 450, 2999, 3000, 64, 64, 64):
        rows.go_on(count)
        rows.check()


@pytest.mark.parametrize("make", KINDS)
def test_rows_written_in_any_order_are_found(make):
    rows = Rows(make)
    order = torch.randperm(PLACES, generator=rows.draws)
    for some in order.split(350):
        rows.write(some)
        rows.check()
    for some in order.flip(0).split(700):  # as a snapshot of several parts is put into place
        rows.write(some)
    rows.check()


@pytest.mark.parametrize("make", KINDS)
def test_entries_that_stop_answering_are_found_no_more(make):
    rows = Rows(make)
    rows.go_on(PLACES)
    rows.check()
    for share in (0.3, 0.01, 0.0):
        rows.go_on(PLACES - 100, share)
        rows.check()
    rows.go_on(PLACES, 0.9)
    rows.check()


@pytest.mark.parametrize("make", KINDS)
def test_fewer_answers_than_asked_for_leave_places_empty(make):
    rows = Rows(make)
    rows.go_on(PLACES)
    rows.check()
    rows.go_on(PLACES, share=0.0)
    rows.write(torch.tensor([7, 2950]), share=1.0)
    scores, places = rows.index.search(rows.unit(5), 20)
    assert {frozenset(row) for row in places[:, :2].tolist()} == {frozenset({7, 2950})}
    assert (places[:, 2:] == NO_PLACE).all() and (scores[:, 2:] == -torch.inf).all()


@pytest.mark.parametrize("make", KINDS)
def test_a_query_of_nan_finds_nothing_and_harms_no_other(make):
    rows = Rows(make)
    rows.go_on(PLACES)
    good = rows.unit(1)
    _, alone = rows.index.search(good, 5)
    _, places = rows.index.search(torch.cat([good * torch.nan, good]), 5)
    assert (places[0] == NO_PLACE).all() and torch.equal(places[1], alone[0])


@pytest.mark.parametrize("make", KINDS)
def test_no_row_is_lost_that_is_written_while_the_index_learns(make, monkeypatch):
    monkeypatch.setattr(ivf, "FLAT_BELOW", 6_000)
    learned = threading.Event()  # so that learning takes its time
    monkeypatch.setattr(ivf, "still_needed", lambda: learned.wait(60))
    monkeypatch.setattr(segments, "LEAST_PLACES", 3_000)
    rows = Rows(make, wait=False, places=12_000)
    rows.go_on(10_000)
    assert not rows.index.is_building
    rows.check()
    while_building = 0
    for _ in range(20):
        rows.write(torch.randperm(10_000, generator=rows.draws)[:64])
        rows.check()
        while_building += rows.index.is_building
    learned.set()
    while rows.index.is_building:
        rows.go_on(64)
        rows.check()
        while_building += rows.index.is_building
    assert while_building >= 20
    rows.check()
    for _ in range(5):
        rows.go_on(500)
        rows.check()


@pytest.mark.parametrize("make", KINDS)
def test_rows_written_between_learning_and_its_use_are_found(make):
    rows = Rows(make, wait=False)
    rows.go_on(2900, share=1.0)
    rows.check()
    while rows.index.is_building:
        time.sleep(0.01)
    rows.go_on(64, share=1.0)
    _, places = rows.index.search(rows.vectors[2900:2964], 1)
    assert places[:, 0].tolist() == list(range(2900, 2964))


def test_learning_in_line_gives_the_same_answers_again(monkeypatch):
    monkeypatch.setattr(ivf, "PROBES", 2)
    found = []
    for _ in range(2):
        rows = Rows(make_ivf)
        rows.go_on(2500)
        first = rows.index.search(rows.unit(50), 20)[1]
        rows.go_on(2500)
        found.append(torch.cat([first, rows.index.search(rows.unit(50), 20)[1]]))
    assert torch.equal(*found)


def test_learning_on_time_is_the_same_however_long_it_takes(monkeypatch):
    """One run learns slowly and one at once; both use new lists from the same row on."""
    monkeypatch.setattr(ivf, "PROBES", 1)
    train, found = ivf.InvertedLists, []

    def slowly(sample, count):
        time.sleep(0.2)
        return train(sample, count)

    for make_lists in (train, slowly):
        monkeypatch.setattr(ivf, "InvertedLists", make_lists)
        rows = Rows(lambda keys, wait: IvfIndex(keys, learning="on_time"))
        rows.go_on(1000, share=1.0)
        answers, approximate = [], []
        for _ in range(60):
            queries = rows.unit(20)
            answers.append(rows.index.search(queries, 20)[1])
            exact = (queries @ rows.vectors[: rows.keys.used].T).topk(1, dim=1).indices
            approximate.append(not torch.equal(answers[-1][:, :1], exact))
            rows.go_on(20, share=1.0)
        found.append(torch.stack(answers))
        # Searched by brute force until 1000 / 16 rows are written and 1000 more put into lists.
        assert not any(approximate[:10]) and sum(approximate[20:]) > 20
        rows.check_all_are_held()
    assert torch.equal(*found)


def test_candidates_are_ranked_in_float32(monkeypatch):
    monkeypatch.setattr(ivf, "PROBES", 2)
    rows = Rows(make_ivf)
    rows.go_on(PLACES, share=1.0)
    queries = rows.unit(50)
    scores, places = rows.index.search(queries, 20)
    exact = (queries @ rows.vectors.T).gather(1, places.clamp(min=0))
    exact = exact.masked_fill(places == NO_PLACE, -torch.inf)
    torch.testing.assert_close(scores, exact, rtol=0, atol=1e-6)
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)


def test_segments_get_an_index_once_and_lose_it_when_overwritten(monkeypatch):
    built = []

    def build(vectors):
        built.append(len(vectors))
        return segments_build(vectors)

    segments_build = segments.build_ivf_on_cpu
    monkeypatch.setattr(segments, "build_ivf_on_cpu", build)
    rows = Rows(make_segments)  # 7 segments of 400 and one of 200
    for count, expected in (
        (399, 0),  # being written
        (1, 0),
        (1, 1),
        (300, 1),
        (1000, 4),  # 1701 written: the fifth is being written
        (1299, 7),  # up to the end
        (1, 8),  # the short one at the end is done, the first one overwritten
        (399, 8),
        (1, 9),
    ):
        rows.go_on(count, share=1.0)
        rows.check()
        rows.check()
        assert len(built) == expected
    assert built == [400] * 7 + [200, 400]


@pytest.mark.parametrize("index", ["flat", "ivf"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_ring_with_an_index_comes_back_from_a_snapshot(tmp_path, monkeypatch, storage, index):
    monkeypatch.setattr(part, "LOADED_AT_ONCE", 177)
    dims = {"imu": 12, "video": 20}

    def make(kind: str) -> RingSupportSet:
        return RingSupportSet(SupportSpec(1500, dims, storage=storage, index=kind))

    draws = torch.Generator().manual_seed(0)

    def entries(first: int, count: int) -> SupportEntries:
        uid = torch.arange(first, first + count)
        vectors = {name: torch.randn(count, dim, generator=draws) for name, dim in dims.items()}
        present = {
            "imu": torch.ones(count, dtype=torch.bool),
            "video": torch.rand(count, generator=draws) < 0.8,
        }
        return SupportEntries(uid, uid, uid, vectors, present)

    exact, ring, copy = make("flat"), make(index), make(index)
    for first in range(0, 2500, 250):
        some = entries(first, 250)
        exact.enqueue(some)
        ring.enqueue(some)
    ring.save(tmp_path)
    copy.load(tmp_path)
    some = entries(2500, 100)
    for each in (exact, ring, copy):
        each.enqueue(some)
    nobody = only_uids(torch.full((40,), -5))
    for modality, dim in dims.items():
        queries = torch.randn(40, dim, generator=draws)
        expected = exact.search(queries, 1, nobody, modality)
        for each in (ring, copy):
            found = each.search(queries, 1, nobody, modality)
            assert found.valid.all() and torch.equal(found.uid, expected.uid)
            assert torch.equal(found.embeddings["video"], expected.embeddings["video"])


def test_a_ring_that_learns_on_time_resumes_to_the_last_bit(tmp_path, monkeypatch):
    """Saved while it learns, while lists are filled, and in use: then all go on alike."""
    monkeypatch.setattr(ivf, "PROBES", 1)
    spec = SupportSpec(
        1500, {"imu": 12}, minimum_fill=3, imu_answers="all", index="ivf", learning="on_time"
    )
    ring, draws, phases = RingSupportSet(spec), torch.Generator().manual_seed(0), set()
    copies: list[RingSupportSet] = []
    nobody = only_uids(torch.full((20,), -5))

    def step(number: int, rows: int) -> None:
        uid = torch.arange(number * 100, number * 100 + rows)
        vectors = {"imu": torch.randn(rows, 12, generator=draws)}
        there = {"imu": torch.ones(rows, dtype=torch.bool)}
        queries = torch.randn(20, 12, generator=draws)
        first = None
        for each in (ring, *copies):
            found = each.search(queries, 3, nobody, "imu")
            first = found if first is None else first
            assert torch.equal(found.uid, first.uid) and torch.equal(found.score, first.score)
            each.enqueue(SupportEntries(uid, uid, uid, vectors, there))

    step(0, 600)
    for number in range(1, 70):
        step(number, 24)
        index = ring._part._index["imu"]
        phase = (index._training is not None, index._filling is not None, index._lists is not None)
        if phase not in phases:
            phases.add(phase)
            (tmp_path / str(number)).mkdir()
            ring.save(tmp_path / str(number))
            copies.append(RingSupportSet(spec))
            copies[-1].load(tmp_path / str(number))
    # The first lists: learned, filled, in use; the next ones beside them.
    assert {(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)} <= phases


def test_refuses_what_the_machine_does_not_have():
    keys = Keys.empty(10, 4, torch.float32, "cpu")
    with pytest.raises(ValueError, match=r"cagra searches device memory.*support.index=ivf"):
        build_index("cagra", keys, "faiss", learning="at_once")
    require(faiss.get_num_gpus() == 0, "FAISS for a CPU is not installed here")
    for kind in ("ivf", "cagra"):
        with pytest.raises(ValueError, match=rf"{kind} on CUDA needs a GPU build.*\[gpu\]"):
            choose_build(kind, torch.device("cuda"))
