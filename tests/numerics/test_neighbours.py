"""Neighbours that FAISS and torch find in the ring, against a list of entries and a sort."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import pytest
import torch

from primus_scale.support import RingSupportSet, SupportEntries, SupportSpec

CAPACITY = 37
DIMS = {"imu": 6, "video": 9, "text": 4}


class Entry(NamedTuple):
    uid: int
    recording: int
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

    def search(self, query: np.ndarray, k: int, own: int, modality: str) -> list[tuple]:
        """(score, age, entry) of the k best."""
        query = query / np.linalg.norm(query)
        found = [
            (float(query @ entry.embeddings[modality]), age, entry)
            for age, entry in enumerate(reversed(self.entries))
            if entry.uid != own and self.answers(entry, modality)
        ]
        return sorted(found, key=lambda item: -item[0])[:k]


def make_entries(draws: np.random.Generator, count: int) -> tuple[SupportEntries, list[Entry]]:
    """Entries whose uids repeat now and then, and which lack this or that modality."""
    uid = draws.integers(0, 60, count)
    recording = uid // 5
    vectors = {name: draws.normal(size=(count, dim)) for name, dim in DIMS.items()}
    present = {name: draws.random(count) < 0.6 for name in DIMS}
    present["imu"][:] = True
    listed = [
        Entry(
            int(uid[i]),
            int(recording[i]),
            {m: vectors[m][i] / np.linalg.norm(vectors[m][i]) for m in DIMS if present[m][i]},
        )
        for i in range(count)
    ]
    entries = SupportEntries(
        torch.from_numpy(uid),
        torch.from_numpy(recording),
        {name: torch.from_numpy(rows).float() for name, rows in vectors.items()},
        {name: torch.from_numpy(rows) for name, rows in present.items()},
    )
    return entries, listed


@pytest.mark.parametrize("imu_answers", ["multimodal", "all"])
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_ring_finds_what_a_list_finds(backend, imu_answers):
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
            own = torch.from_numpy(draws.integers(0, 60, 8))
            queries = draws.normal(size=(8, DIMS[modality]))
            found = ring.search(torch.from_numpy(queries).float(), k, own, modality)
            for row in range(8):
                expected = listed.search(queries[row], k, int(own[row]), modality)
                assert found.valid[row].tolist() == [i < len(expected) for i in range(k)]
                for place, (score, age, entry) in enumerate(expected):
                    at = (row, place)
                    assert found.score[at].item() == pytest.approx(score, abs=1e-6)
                    assert found.age[at] == age
                    assert (found.uid[at], found.recording[at]) == (entry.uid, entry.recording)
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
            {"imu": torch.randn(900, 64, generator=draws)},
            {"imu": torch.ones(900, dtype=torch.bool)},
        )
        for ring in rings:
            ring.enqueue(entries)
    queries = torch.randn(200, 64, generator=draws)
    own = torch.randint(900, (200,), generator=draws)
    with_faiss, with_torch = (ring.search(queries, 4, own, "imu") for ring in rings)
    assert with_faiss.valid.all() and (with_faiss.uid != own[:, None]).all()
    assert torch.equal(with_faiss.uid, with_torch.uid)
    assert torch.equal(with_faiss.age, with_torch.age)
    torch.testing.assert_close(with_faiss.score, with_torch.score, rtol=0, atol=1e-6)
