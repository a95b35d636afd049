import json
import time

import numpy as np
import pytest
import torch

from primus_scale.evaluate.finished_work import FinishedWork, digest
from tests.few_shot_task import SmallEncoder


def undone():
    raise AssertionError("done twice")


def test_finished_work_is_kept_and_not_done_again(tmp_path):
    path = tmp_path / "finished.jsonl"
    assert FinishedWork(path).get("a", lambda: {"x": [1, 2]}) == {"x": [1, 2]}
    again = FinishedWork(path)
    assert again.get("a", undone) == {"x": [1, 2]}
    assert again.get("b", lambda: 3) == 3
    assert again.get("b", undone) == 3
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_finished_work_tells_what_it_took_when_it_was_done(tmp_path):
    path = tmp_path / "finished.jsonl"
    FinishedWork(path).get("a", lambda: time.sleep(0.05))
    again = FinishedWork(path)
    again.get("b", lambda: time.sleep(0.02))
    assert 0.07 <= again.seconds(["a", "b", "a"]) < 5
    assert again.seconds(["a", "c"]) is None
    path.write_text('{"key": "d", "value": 1}\n', encoding="utf-8")  # of an earlier version
    assert FinishedWork(path).get("d", undone) == 1
    assert FinishedWork(path).seconds(["d"]) is None


@pytest.mark.parametrize("end", [b'{"key": "b", "val', b"\xff\xfe", b'{"key": "b"}\n', b"[1]\n"])
def test_a_line_cut_short_or_damaged_counts_as_not_done(tmp_path, end):
    path = tmp_path / "finished.jsonl"
    FinishedWork(path).get("a", lambda: 1)
    path.write_bytes(path.read_bytes() + end)
    finished = FinishedWork(path)
    assert finished.get("a", undone) == 1
    assert finished.get("b", lambda: 2) == 2
    assert FinishedWork(path).get("b", undone) == 2


def test_without_a_file_nothing_is_kept():
    finished = FinishedWork()
    assert finished.get("a", lambda: 1) == 1
    assert FinishedWork().get("a", lambda: 2) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*finished\.jsonl"):
        FinishedWork(tmp_path / "missing" / "finished.jsonl").get("a", lambda: 1)


def test_digests_differ_where_anything_does():
    encoder, other = SmallEncoder(0), SmallEncoder(0)
    assert digest(encoder) == digest(other) != digest(SmallEncoder(1))
    with torch.no_grad():
        other.convolution.bias[3] += 1e-6
    assert digest(encoder) != digest(other)
    array = np.arange(6.0)
    things = [array, array.reshape(2, 3), array.astype(np.float32), array + 1, "a", ["a"], {"a": 1}]
    assert len({digest(thing) for thing in things}) == len(things)
    assert digest(torch.arange(6.0)) == digest(torch.arange(6.0).numpy())
    assert digest("a", "b") != digest("ab")
