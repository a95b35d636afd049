"""The ring's bounds: what it refuses, when it answers, and what it saves."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from primus_scale.support import Neighbours, RingSupportSet, SupportEntries
from primus_scale.support.search import search_with_torch

DIMS = {"imu": 3, "video": 2}


def entries(first: int, count: int, video: bool = True) -> SupportEntries:
    """Entries with uids from ``first`` on; entry u points at angle u in the video's plane."""
    uid = torch.arange(first, first + count)
    return SupportEntries(
        uid,
        uid * 10,
        {
            "imu": torch.stack([uid.sin(), uid.cos(), torch.ones(count)], 1),
            "video": torch.stack([uid.cos(), uid.sin()], 1),
        },
        {
            "imu": torch.ones(count, dtype=torch.bool),
            "video": torch.full((count,), video),
        },
    )


def angle(uid: int) -> torch.Tensor:
    value = torch.tensor(float(uid))
    return torch.stack([value.cos(), value.sin()])[None]


NOBODY = torch.tensor([-5])


def test_answers_nothing_before_the_minimum_fill():
    ring = RingSupportSet(8, DIMS, minimum_fill=4)
    ring.enqueue(entries(0, 3))
    assert not ring.search(angle(1), 1, NOBODY, "video").valid.any()
    ring.enqueue(entries(3, 1))
    found = ring.search(angle(1), 1, NOBODY, "video")
    assert found.valid.all() and found.uid.item() == 1 and found.recording.item() == 10
    assert found.age.item() == 2


def test_oldest_entries_make_room_across_the_end():
    ring = RingSupportSet(5, DIMS)
    for first in (0, 3, 6):
        ring.enqueue(entries(first, 3))
        ring_uids = {
            int(uid) for uid in ring.search(angle(0), 1, NOBODY, "video").uid.flatten()
        } | set(ring.state_dict()["uid"][: ring.fill].tolist())
        assert ring_uids == set(range(max(0, first + 3 - 5), first + 3))


def test_own_window_is_struck_out_however_often_it_lies_there():
    ring = RingSupportSet(8, DIMS, minimum_fill=2)
    for _ in range(3):
        ring.enqueue(entries(1, 1))
    ring.enqueue(entries(2, 1))
    found = ring.search(angle(1), 2, torch.tensor([1]), "video")
    assert found.valid.tolist() == [[True, False]] and found.uid[0, 0] == 2


def test_imu_queries_reach_entries_with_a_teacher_only():
    query = entries(1, 1).embeddings["imu"]
    for answers, expected in (("multimodal", 7), ("all", 1)):
        ring = RingSupportSet(8, DIMS, imu_answers=answers)
        ring.enqueue(entries(1, 1, video=False))
        ring.enqueue(entries(7, 1))
        assert ring.search(query, 1, NOBODY, "imu").uid.item() == expected


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"support.minimum_fill is 9.*support.capacity \(8\)"):
        RingSupportSet(8, DIMS, minimum_fill=9)
    with pytest.raises(ValueError, match="without teachers needs imu_answers='all'"):
        RingSupportSet(8, {"imu": 3})
    ring = RingSupportSet(8, DIMS, minimum_fill=2)
    with pytest.raises(ValueError, match=r"objective.neighbours.k is 3.*minimum_fill \(2\)"):
        ring.search(angle(0), 3, NOBODY, "video")


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_query_of_nan_has_no_neighbour_and_harms_no_other(backend):
    ring = RingSupportSet(8, DIMS, backend=backend)
    ring.enqueue(entries(0, 6))
    queries = torch.cat([angle(3), torch.full((1, 2), torch.nan)])
    found = ring.search(queries, 1, NOBODY.repeat(2), "video")
    assert found.valid.tolist() == [[True], [False]] and found.uid[0, 0] == 3


def test_no_question_gives_no_neighbours():
    ring = RingSupportSet(8, DIMS)
    ring.enqueue(entries(0, 8))
    found = ring.search(torch.zeros(0, 2), 1, torch.zeros(0, dtype=torch.int64), "video")
    assert found.uid.shape == (0, 1) and found.embeddings["imu"].shape == (0, 1, 3)


def test_state_survives_safetensors_and_goes_on_alike():
    ring, copy = (RingSupportSet(8, DIMS, minimum_fill=2) for _ in range(2))
    ring.enqueue(entries(0, 11))
    copy.load_state_dict(load(save(ring.state_dict())))
    for either in (ring, copy):
        either.enqueue(entries(20, 3))
    assert copy.fill == ring.fill == 8
    first, second = (each.search(angle(21), 2, NOBODY, "video") for each in (ring, copy))
    for name in ("uid", "recording", "age", "score", "valid"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for name, tensor in ring.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("capacity", "dims", "field"),
    [(9, DIMS, "keys.imu"), (8, {"imu": 3, "video": 4}, "keys.video"), (8, {"imu": 3}, "keys.vid")],
)
def test_state_of_another_ring_is_refused_and_leaves_it_as_it_was(capacity, dims, field):
    ring = RingSupportSet(8, DIMS)
    ring.enqueue(entries(0, 3))
    other = RingSupportSet(capacity, dims, imu_answers="all")
    with pytest.raises(ValueError, match=rf"{field}.*support.capacity"):
        ring.load_state_dict(other.state_dict())
    assert ring.fill == 3


def test_neighbours_are_put_into_their_rows():
    whole = Neighbours.none(4, 1, DIMS, "cpu")
    ring = RingSupportSet(8, DIMS)
    ring.enqueue(entries(0, 6))
    found = ring.search(torch.cat([angle(4), angle(2)]), 1, NOBODY.expand(2), "video")
    whole.put(torch.tensor([3, 1]), found)
    assert whole.valid.flatten().tolist() == [False, True, False, True]
    assert whole.uid.flatten().tolist()[1::2] == [2, 4]
    assert torch.equal(whole.embeddings["video"][3], found.embeddings["video"][0])


def test_torch_search_in_pieces_equals_one_go(monkeypatch):
    queries, keys = torch.randn(50, 4), torch.randn(30, 4)
    whole = search_with_torch(queries, keys, 3)
    monkeypatch.setattr("primus_scale.support.search.SCORES_AT_ONCE", 200)
    pieces = search_with_torch(queries, keys, 3)
    torch.testing.assert_close(pieces[0], whole[0])
    assert torch.equal(pieces[1], whole[1])
