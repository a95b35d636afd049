"""The ring's bounds: what it refuses, when it answers, and what it saves."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from primus_scale.support import (
    Exclusion,
    Neighbours,
    RingSupportSet,
    SupportEntries,
    SupportSpec,
)
from primus_scale.support.actor import SupportActor, pack_entries, pack_exclusion, to_array
from primus_scale.support.base import ROW_FIELDS
from primus_scale.support.keys import Keys
from primus_scale.support.part import RingPart
from primus_scale.support.search import search_with_torch
from primus_scale.support.snapshot import save_empty
from tests.exclusions import only_uids

DIMS = {"imu": 3, "video": 2}


def entries(first: int, count: int, video: bool = True) -> SupportEntries:
    """Entries with uids from ``first`` on; entry u points at angle u in the video's plane."""
    uid = torch.arange(first, first + count)
    return SupportEntries(
        uid,
        uid * 10,
        uid * 100,
        {
            "imu": torch.stack([uid.sin(), uid.cos(), torch.ones(count)], 1),
            "video": torch.stack([uid.cos(), uid.sin()], 1),
        },
        {
            "imu": torch.ones(count, dtype=torch.bool),
            "video": torch.full((count,), video),
        },
        uid * 5.0,
    )


def angle(uid: int) -> torch.Tensor:
    value = torch.tensor(float(uid))
    return torch.stack([value.cos(), value.sin()])[None]


NOBODY = only_uids(torch.tensor([-5]))


def test_answers_nothing_before_the_minimum_fill():
    ring = RingSupportSet(SupportSpec(8, DIMS, minimum_fill=4))
    ring.enqueue(entries(0, 3))
    assert not ring.search(angle(1), 1, NOBODY, "video").valid.any()
    ring.enqueue(entries(3, 1))
    found = ring.search(angle(1), 1, NOBODY, "video")
    assert found.valid.all()
    assert [column.item() for column in found.origin] == [1, 10, 100, 5.0]
    assert found.age.item() == 2


def test_oldest_entries_make_room_across_the_end():
    ring = RingSupportSet(SupportSpec(5, DIMS))
    for first in (0, 3, 6):
        ring.enqueue(entries(first, 3))
        ring_uids = {
            int(uid) for uid in ring.search(angle(0), 1, NOBODY, "video").uid.flatten()
        } | set(ring.state_dict()["uid"][: ring.fill].tolist())
        assert ring_uids == set(range(max(0, first + 3 - 5), first + 3))


def test_own_window_is_struck_out_however_often_it_lies_there():
    ring = RingSupportSet(SupportSpec(8, DIMS, minimum_fill=2))
    for _ in range(3):
        ring.enqueue(entries(1, 1))
    ring.enqueue(entries(2, 1))
    found = ring.search(angle(1), 2, only_uids(torch.tensor([1])), "video")
    assert found.valid.tolist() == [[True, False]] and found.uid[0, 0] == 2


def test_imu_queries_reach_entries_with_a_teacher_only():
    query = entries(1, 1).embeddings["imu"]
    for answers, expected in (("multimodal", 7), ("all", 1)):
        ring = RingSupportSet(SupportSpec(8, DIMS, imu_answers=answers))
        ring.enqueue(entries(1, 1, video=False))
        ring.enqueue(entries(7, 1))
        assert ring.search(query, 1, NOBODY, "imu").uid.item() == expected


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"support.minimum_fill is 9.*support.capacity \(8\)"):
        RingSupportSet(SupportSpec(8, DIMS, minimum_fill=9))
    with pytest.raises(ValueError, match="without teachers needs imu_answers='all'"):
        RingSupportSet(SupportSpec(8, {"imu": 3}))
    ring = RingSupportSet(SupportSpec(8, DIMS, minimum_fill=2))
    with pytest.raises(ValueError, match=r"objective.neighbours.k is 3.*minimum_fill \(2\)"):
        ring.search(angle(0), 3, NOBODY, "video")


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_query_of_nan_has_no_neighbour_and_harms_no_other(backend):
    ring = RingSupportSet(SupportSpec(8, DIMS, backend=backend))
    ring.enqueue(entries(0, 6))
    queries = torch.cat([angle(3), torch.full((1, 2), torch.nan)])
    found = ring.search(queries, 1, only_uids(torch.tensor([-5, -5])), "video")
    assert found.valid.tolist() == [[True], [False]] and found.uid[0, 0] == 3


def test_no_question_gives_no_neighbours():
    ring = RingSupportSet(SupportSpec(8, DIMS))
    ring.enqueue(entries(0, 8))
    found = ring.search(torch.zeros(0, 2), 1, only_uids(torch.zeros(0, dtype=torch.int64)), "video")
    assert found.uid.shape == (0, 1) and found.embeddings["imu"].shape == (0, 1, 3)


def test_state_survives_files_and_goes_on_alike(tmp_path):
    ring, copy = (RingSupportSet(SupportSpec(8, DIMS, minimum_fill=2)) for _ in range(2))
    ring.enqueue(entries(0, 11))
    ring.save(tmp_path)
    copy.load(tmp_path)
    for either in (ring, copy):
        either.enqueue(entries(20, 3))
    assert copy.fill == ring.fill == 8
    first, second = (each.search(angle(21), 2, NOBODY, "video") for each in (ring, copy))
    for name in ROW_FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name))
    for name, tensor in ring.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor)


@pytest.mark.parametrize("dims", [{"imu": 3, "video": 4}, {"imu": 3}])
def test_state_of_another_ring_is_refused_and_leaves_it_as_it_was(tmp_path, dims):
    ring = RingSupportSet(SupportSpec(8, DIMS))
    ring.enqueue(entries(0, 3))
    other = RingSupportSet(SupportSpec(8, dims, imu_answers="all"))
    other.save(tmp_path)
    with pytest.raises(ValueError, match=r"widths.*expects.*encoder.ss_dim"):
        ring.load(tmp_path)
    assert ring.fill == 3


def test_state_of_an_earlier_version_is_refused_and_leaves_it_as_it_was(tmp_path):
    """That of a version whose entries had no session."""
    ring, other = (RingSupportSet(SupportSpec(8, DIMS)) for _ in range(2))
    ring.enqueue(entries(0, 3))
    other.enqueue(entries(0, 5))
    other.save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    state = load_file(path)
    del state["session"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"no column session: an earlier version .* new output"):
        ring.load(tmp_path)
    assert ring.fill == 3


def part_states(parts):
    """What several parts hold, by the number of the entry."""
    held = {}
    for part in parts:
        state = part.state_dict()
        for row, number in enumerate(state["number"].tolist()):
            if number >= part.added - 10:
                held[number] = [state[name][row].tolist() for name in sorted(state)[1:]]
    return held


@pytest.mark.parametrize(("writers", "readers"), [(1, 3), (3, 2), (2, 1)])
def test_parts_share_out_the_ring_and_a_snapshot_of_any_number_of_them(tmp_path, writers, readers):
    spec = SupportSpec(10, DIMS)
    written = [RingPart(spec, part, writers) for part in range(writers)]
    for first in (0, 7, 14):
        numbers = torch.arange(first, first + 7)
        for part in written:
            part.enqueue(entries(first, 7), numbers, first + 7)
    for part in written:
        part.save(tmp_path, 21)
    read = [RingPart(spec, part, readers) for part in range(readers)]
    for part in read:
        part.load(tmp_path)
    assert part_states(read) == part_states(written)
    assert sorted(part_states(read)) == list(range(11, 21))
    assert sum(part.held for part in read) == 10


@pytest.mark.parametrize("session", [None, "own", "other"])
def test_actors_find_together_what_the_ring_finds(session):
    """Three actors, without Ray, under each mask of the session; the ring goes round."""
    spec, draws = SupportSpec(40, {"imu": 8}, minimum_fill=4, imu_answers="all"), torch.Generator()
    ring, actors = RingSupportSet(spec), [SupportActor(spec, i, 3, 1, "cpu") for i in range(3)]
    numbers, present = torch.arange(70), {"imu": torch.ones(70, dtype=torch.bool)}
    vectors = {"imu": torch.randn(70, 8, generator=draws)}
    past = SupportEntries(numbers, numbers // 7, numbers // 14, vectors, present, numbers * 2.5)
    for rows in numbers.split(10):
        ring.enqueue(past.at(rows))
        for actor in actors:
            actor.enqueue(pack_entries(past.at(rows)), to_array(rows), int(rows[-1]) + 1)
    exclude = Exclusion(past.origin.at(slice(25, 70)), 4.98, session)
    queries = torch.nn.functional.normalize(torch.randn(45, 8, generator=draws), dim=1)
    expected = ring.search(queries, 3, exclude, "imu")
    packed = to_array(queries), 3, pack_exclusion(exclude), "imu", 70
    answers = [actor.search(*packed)[0] for actor in actors]
    for row in range(45):
        found = [pair for a in answers for pair in zip(-a.score[row], a.uid[row], strict=True)]
        best = [uid for score, uid in sorted(found)[:3] if score < float("inf")]
        assert best == expected.uid[row, expected.valid[row]].tolist()
    assert expected.valid.sum() > 90


def test_a_part_refilled_from_a_snapshot_keeps_what_came_since_and_drops_what_is_old(tmp_path):
    spec = SupportSpec(10, DIMS)
    part = RingPart(spec)
    part.enqueue(entries(0, 9), torch.arange(9), 9)
    part.save(tmp_path, 9)
    again = RingPart(spec)  # its process died, and 9 to 14 were lost on the way to it
    again.enqueue(entries(15, 3), torch.arange(15, 18), 18)
    again.load(tmp_path)
    assert again.held == 3 + 1  # of the snapshot only 8 is among the last ten
    found = again.search(angle(7), 4, NOBODY, "video", 18)
    assert set(found.number[0].tolist()) == {8, 15, 16, 17}


def test_a_part_that_was_lost_leaves_the_others_entries(tmp_path):
    spec = SupportSpec(10, DIMS)
    part = RingPart(spec, 0, 2)
    part.enqueue(entries(0, 9), torch.arange(9), 9)
    part.save(tmp_path, 9)
    save_empty(spec, 1, 2, tmp_path, 9)
    ring = RingSupportSet(spec)
    ring.load(tmp_path)
    assert ring.fill == 5
    found = ring.search(angle(3), 1, NOBODY, "video")
    assert found.uid.item() in (2, 4), "3 was of the other part"
    assert found.age.item() == 8 - found.uid.item()


def test_places_that_were_jumped_over_answer_nothing():
    part = RingPart(SupportSpec(200, DIMS))
    part.enqueue(entries(150, 3), torch.arange(150, 153), 153)
    assert part.held == 3
    found = part.search(-angle(151), 5, NOBODY, "video", 153)
    assert found.number[0].tolist()[3:] == [-1, -1]
    assert sorted(found.number[0].tolist()[:3]) == [150, 151, 152]
    keys = Keys.empty(8, 2, torch.float32, "cpu")
    keys.raise_used(3)
    assert not keys.answers(torch.arange(3)).any()


def test_a_snapshot_that_lacks_a_part_is_refused(tmp_path):
    for part in range(2):
        RingPart(SupportSpec(8, DIMS), part, 3).save(tmp_path, 0)
    with pytest.raises(FileNotFoundError, match=r"holds 2 parts"):
        RingSupportSet(SupportSpec(8, DIMS)).load(tmp_path)


def test_float16_holds_what_it_can_and_scores_it_in_float32():
    ring = RingSupportSet(SupportSpec(8, DIMS, storage="float16"))
    ring.enqueue(entries(0, 6))
    found = ring.search(angle(3), 1, NOBODY, "video")
    held = angle(3).half().float()
    assert torch.equal(found.embeddings["video"][0], held)
    assert found.score.item() == pytest.approx((angle(3) @ held.T).item(), abs=1e-7)


def test_neighbours_are_put_into_their_rows():
    whole = Neighbours.none(4, 1, DIMS, "cpu")
    ring = RingSupportSet(SupportSpec(8, DIMS))
    ring.enqueue(entries(0, 6))
    found = ring.search(
        torch.cat([angle(4), angle(2)]), 1, only_uids(torch.tensor([-5, -5])), "video"
    )
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
