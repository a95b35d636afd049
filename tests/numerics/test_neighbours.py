"""Neighbours that FAISS and torch find in the ring, against a list of entries and a sort."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np
import pytest
import torch

from primus_scale.sample import Origin
from primus_scale.support import Exclusion, RingSupportSet, SupportEntries, SupportSpec, ivf
from primus_scale.support.keys import STORAGE
from tests.exclusions import only_uids

CAPACITY = 37
DIMS = {"imu": 6, "video": 9, "text": 4}


class Entry(NamedTuple):
    uid: int
    recording: int
    session: int
    start_s: float
    embeddings: dict[str, np.ndarray]  # float64, L2-normalised; absent where missing


class ListOfEntries:
    """What a support set means, in the plainest way."""

    def __init__(self, capacity: int, imu_answers: str) -> None:
        self.entries: deque[Entry] = deque(maxlen=capacity)
        self.imu_answers = imu_answers

    def answers(self, entry: Entry, modality: str) -> bool:
        multimodal = "video" in entry.embeddings or "text" in entry.embeddings
        if modality == "imu" and self.imu_answers == "multimodal" and not multimodal:
            return False
        return modality in entry.embeddings

    def search(
        self,
        query: np.ndarray,
        k: int,
        own: Entry,
        within_s: float,
        session: str | None,
        modality: str,
    ) -> list[tuple]:
        """(score, age, entry) of the k best."""

        def excluded(entry: Entry) -> bool:
            near = abs(entry.start_s - own.start_s) <= within_s
            if session == "own" and entry.session == own.session:
                return True
            if session == "other" and entry.session != own.session:
                return True
            return entry.uid == own.uid or (entry.recording == own.recording and near)

        query = query / np.linalg.norm(query)
        found = [
            (float(query @ entry.embeddings[modality]), age, entry)
            for age, entry in enumerate(reversed(self.entries))
            if not excluded(entry) and self.answers(entry, modality)
        ]
        return sorted(found, key=lambda item: -item[0])[:k]


def make_entries(draws: np.random.Generator, count: int) -> tuple[SupportEntries, list[Entry]]:
    """Entries whose uids repeat now and then, and which lack this or that modality."""
    uid = draws.integers(0, 60, count)
    recording, session, start_s = whereabouts(uid)
    vectors = {name: draws.normal(size=(count, dim)) for name, dim in DIMS.items()}
    present = {name: draws.random(count) < 0.6 for name in DIMS}
    present["imu"][:] = True
    listed = [
        Entry(
            int(uid[i]),
            int(recording[i]),
            int(session[i]),
            float(start_s[i]),
            {m: vectors[m][i] / np.linalg.norm(vectors[m][i]) for m in DIMS if present[m][i]},
        )
        for i in range(count)
    ]
    entries = SupportEntries(
        torch.from_numpy(uid),
        torch.from_numpy(recording),
        torch.from_numpy(session),
        {name: torch.from_numpy(rows).float() for name, rows in vectors.items()},
        {name: torch.from_numpy(rows) for name, rows in present.items()},
        torch.from_numpy(start_s),
    )
    return entries, listed


def whereabouts(uid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recording, session and start: three devices begin a window each 2 s, not at once."""
    return uid // 15, uid // 30 + 7, uid % 5 * 2.0 + uid % 15 // 5 * 0.3


EXCLUDED = {  # within_s, session
    "window": (-1.0, None),
    "moment": (3.9, None),
    "recording": (math.inf, None),
    "session": (math.inf, "own"),
    "other sessions": (3.9, "other"),
    "other sessions and recording": (math.inf, "other"),
}


@pytest.mark.parametrize(("within_s", "session"), EXCLUDED.values(), ids=EXCLUDED)
@pytest.mark.parametrize("imu_answers", ["multimodal", "all"])
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_ring_finds_what_a_list_finds(backend, imu_answers, within_s, session):
    draws = np.random.default_rng(0)
    ring = RingSupportSet(
        SupportSpec(CAPACITY, DIMS, imu_answers=imu_answers, minimum_fill=5, backend=backend)
    )
    listed = ListOfEntries(CAPACITY, imu_answers)
    # partly filled, filled to the brim, gone round, and more entries at once than there is room
    for count in (5, 3, 29, 1, 20, 36, 50, 37, 90, 11):
        entries, plain = make_entries(draws, count)
        ring.enqueue(entries)
        listed.entries.extend(plain)
        assert ring.fill == len(listed.entries)
        for modality, k in (("video", 1), ("text", 3), ("imu", 5), ("video", 5)):
            own = draws.integers(0, 60, 8)
            origin = own, *whereabouts(own)
            exclude = Exclusion(Origin(*map(torch.from_numpy, origin)), within_s, session)
            queries = draws.normal(size=(8, DIMS[modality]))
            found = ring.search(torch.from_numpy(queries).float(), k, exclude, modality)
            for row in range(8):
                asking = Entry(*(column[row] for column in origin), {})
                expected = listed.search(queries[row], k, asking, within_s, session, modality)
                assert found.valid[row].tolist() == [i < len(expected) for i in range(k)]
                for place, (score, age, entry) in enumerate(expected):
                    at = (row, place)
                    assert found.score[at].item() == pytest.approx(score, abs=1e-6)
                    assert found.age[at] == age
                    assert tuple(column.item() for column in found.origin.at(at)) == entry[:4]
                    assert found.start_s[at] == entry.start_s
                    for name in DIMS:
                        assert bool(found.present[name][at]) == (name in entry.embeddings)
                        if name in entry.embeddings:
                            vector = found.embeddings[name][at].numpy()
                            np.testing.assert_allclose(vector, entry.embeddings[name], atol=1e-6)


def test_faiss_equals_torch_at_a_real_size():
    draws = torch.Generator().manual_seed(0)
    rings = [
        RingSupportSet(
            SupportSpec(3000, {"imu": 64}, minimum_fill=4, imu_answers="all", backend=backend)
        )
        for backend in ("faiss", "torch")
    ]
    for _ in range(5):  # each uid lies in the ring up to four times
        uid = torch.randint(900, (900,), generator=draws)
        entries = SupportEntries(
            uid,
            uid,
            uid,
            {"imu": torch.randn(900, 64, generator=draws)},
            {"imu": torch.ones(900, dtype=torch.bool)},
        )
        for ring in rings:
            ring.enqueue(entries)
    queries = torch.randn(200, 64, generator=draws)
    own = torch.randint(900, (200,), generator=draws)
    with_faiss, with_torch = (ring.search(queries, 4, only_uids(own), "imu") for ring in rings)
    assert with_faiss.valid.all() and (with_faiss.uid != own[:, None]).all()
    assert torch.equal(with_faiss.uid, with_torch.uid)
    assert torch.equal(with_faiss.age, with_torch.age)
    torch.testing.assert_close(with_faiss.score, with_torch.score, rtol=0, atol=1e-6)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_a_neighbour_is_found_behind_all_of_a_long_recording(monkeypatch, index, storage):
    """The 3,000 entries most alike each query are of its own recording."""
    monkeypatch.setattr(ivf, "FLAT_BELOW", 1000)
    draws = torch.Generator().manual_seed(0)
    spec = SupportSpec(
        5000, {"imu": 16}, minimum_fill=4, imu_answers="all", index=index, storage=storage
    )
    ring, uid = RingSupportSet(spec), torch.arange(5000)
    recording = (uid >= 3000).long() * (1 + uid // 100)
    centre = torch.nn.functional.normalize(torch.randn(16, generator=draws), dim=0)
    spread = torch.where(recording == 0, 0.1, 1.0)[:, None]
    vectors = centre + spread * torch.randn(5000, 16, generator=draws)
    present = torch.ones(5000, dtype=torch.bool)
    session = recording // 2
    ring.enqueue(
        SupportEntries(uid, recording, session, {"imu": vectors}, {"imu": present}, uid * 5.0)
    )
    asking = torch.arange(0, 3000, 300)
    origin = Origin(asking, recording[asking], session[asking], asking * 5.0)
    found = ring.search(vectors[asking], 3, Exclusion(origin, math.inf), "imu")
    assert found.valid.all() and (found.recording != 0).all()
    unit = torch.nn.functional.normalize(vectors, dim=1)
    held = unit[3000:].to(STORAGE[storage])
    expected = (unit[asking].double() @ held.double().T).sort(dim=1, descending=True)
    assert torch.equal(found.uid, 3000 + expected.indices[:, :3])
    # Rows that ask for another recording's neighbours have them from the first search.
    other = Exclusion(origin._replace(recording=recording[asking] + 999), -1.0)
    assert (ring.search(vectors[asking], 1, other, "imu").recording == 0).all()


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_a_session_is_searched_exactly_with_every_index(monkeypatch, index, storage):
    """A ring gone round, whose inverted lists are searched so little that they miss much."""
    monkeypatch.setattr(ivf, "FLAT_BELOW", 1000)
    monkeypatch.setattr(ivf, "PROBES", 1)
    capacity, k, draws = 4000, 5, torch.Generator().manual_seed(0)
    spec = SupportSpec(
        capacity, {"imu": 16}, minimum_fill=k, imu_answers="all", index=index, storage=storage
    )
    ring, uid = RingSupportSet(spec), torch.arange(6000)
    session = torch.randint(60, (6000,), generator=draws)
    session[2500:2503] = 98  # fewer than k entries
    session[:1000] = 99  # overwritten
    recording, start_s = session * 3 + uid % 3, (uid // 3).double()
    vectors = torch.randn(6000, 16, generator=draws)
    entries = SupportEntries(
        uid,
        recording,
        session,
        {"imu": vectors},
        {"imu": torch.rand(6000, generator=draws) < 0.8},
        start_s,
    )
    ring.enqueue(entries.at(uid < 3500))
    ring.search(vectors[:1], 1, only_uids(uid[:1]), "imu")  # builds the lists
    ring.enqueue(entries.at(uid >= 3500))
    asking = torch.cat([torch.arange(3000, 3100), torch.tensor([2500, 10])])
    queries = torch.randn(len(asking), 16, generator=draws)
    own = entries.at(asking).origin
    found = ring.search(queries, k, Exclusion(own, 40.0, "other"), "imu")

    held = torch.nn.functional.normalize(vectors, dim=1).to(STORAGE[storage]).double()
    scores = torch.nn.functional.normalize(queries.double(), dim=1) @ held.T
    for row, window in enumerate(asking.tolist()):
        allowed = [
            (-float(scores[row, place]), place)
            for place in range(6000 - capacity, 6000)
            if entries.present["imu"][place]
            and session[place] == session[window]
            and place != window
            and (recording[place] != recording[window] or abs(place // 3 - window // 3) > 40)
        ]
        expected = [place for _, place in sorted(allowed)[:k]]
        assert found.uid[row, found.valid[row]].tolist() == expected
    assert found.valid[:-2].all() and not found.valid[-1].any()
    assert found.valid[-2].sum() < k
    if index == "ivf":
        anyone = ring.search(queries, 1, only_uids(asking), "imu")
        answering = scores[:, -capacity:].masked_fill(~entries.present["imu"][-capacity:], -2)
        assert not torch.allclose(anyone.score[:, 0].double(), answering.max(1).values, atol=1e-3)
