"""Which parts of sessions a record consists of: counted, and checked by verify."""

from dataclasses import replace

import numpy as np
import pytest

from primus_scale.data.index import SessionPart, read_index
from primus_scale.data.record import recording_id, session_id
from shards.write.sessions import session_parts
from shards.write.verify import verify
from tests.shard_factory import edit_index, make_blocks, make_windows, write_packed


def block_of(rows):
    """A block of windows of (session, recording, start), with ids of recordings by rank."""
    metas = []
    for number, (window, row) in enumerate(zip(make_windows(len(rows)), rows, strict=True)):
        session, recording, start_s = row
        changes = {"session": session, "recording": recording, "start_s": start_s}
        metas.append(replace(window.meta, uid=number, placement="waist", **changes))
    windows = [replace(w, meta=m) for w, m in zip(make_windows(len(rows)), metas, strict=True)]
    return make_blocks(windows, block=len(rows))[0], metas


def names_by_id(*names):
    """The names in the order of the ids of their recordings."""
    metas = [replace(make_windows(1)[0].meta, recording=name) for name in names]
    return [meta.recording for meta in sorted(metas, key=recording_id)]


def test_windows_of_a_session_in_order_are_a_part():
    first, second = names_by_id("one", "two")
    rows = [
        ("a", first, 10.0),
        ("a", first, 11.0),
        ("a", first, 12.0),
        ("a", first, 20.5),  # a gap moves no median
        ("a", second, 3.0),  # of its other recording: no step from there to here
        ("b", first, 3.0),
        ("a", second, 4.0),
        ("a", second, 2.0),  # not in order: another part
        ("a", second, 2.3),
    ]
    block, metas = block_of(rows)
    a, b = session_id(metas[0]), session_id(metas[5])
    assert session_parts(block) == (
        SessionPart(a, 5, 1.0),
        SessionPart(b, 1, 0.0),
        SessionPart(a, 1, 0.0),
        SessionPart(a, 2, 0.3),
    )


def test_a_part_has_no_step_where_no_two_windows_are_of_one_recording():
    first, second = names_by_id("one", "two")
    block, metas = block_of([("a", first, 0.0), ("a", second, 1.0)])
    assert session_parts(block) == (SessionPart(session_id(metas[0]), 2, 0.0),)


def test_a_recording_goes_before_another_by_its_id():
    first, second = names_by_id("one", "two")
    block, _ = block_of([("a", second, 0.0), ("a", first, 1.0)])
    assert [part.windows for part in session_parts(block)] == [1, 1]


@pytest.fixture
def folder(tmp_path):
    windows = sorted(make_windows(40), key=lambda w: (w.meta.recording, w.meta.placement))
    write_packed(str(tmp_path), make_blocks(windows), sessions=True)
    return tmp_path


def test_the_writer_tells_them_and_verify_compares(folder):
    assert verify(str(folder)).ok
    (shard,) = read_index(str(folder)).shards
    assert [[part.windows for part in record] for record in shard.sessions] == [
        [5, 5, 5, 1],
        [4, 5, 5, 2],
        [3, 5],
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[1].__setitem__(0, 5), r"part 1 is [5, 5, 5.0], the data's ["),
        (lambda p: p[1].__setitem__(2, 2.5), "5, 2.5], the data's ["),
        (lambda p: (p[0].__setitem__(1, 6), p[1].__setitem__(1, 4)), "part 0 is ["),
        (lambda p: (p.pop(), p[2].__setitem__(1, 6)), "part 2 is ["),
        (lambda p: (p[3].__setitem__(0, 9), p.insert(3, [9, 1, 0.0]), p.pop()), "part 3 is [9, 1"),
    ],
)
def test_verify_finds_sessions_that_are_not_those_of_the_block(folder, change, said):
    edit_index(folder, lambda tree: change(tree["shards"][0]["sessions"][0]))
    (fault,) = verify(str(folder)).faults
    assert fault.startswith("shard-000000.tar record 0: sessions: ")
    assert said in fault


def test_verify_finds_a_session_column_that_is_not_that_of_the_metas(tmp_path):
    blocks = make_blocks(make_windows(16))
    columns = {"session": blocks[0].session ^ np.int64(1)}
    with pytest.raises(ValueError, match=r"session differs from that of meta\.json in 16 windows"):
        write_packed(str(tmp_path), [replace(blocks[0], **columns)])
