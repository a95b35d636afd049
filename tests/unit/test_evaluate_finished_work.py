import json

import numpy as np
import pytest
import torch

from primus_scale.evaluate.finished_work import FinishedWork, digest
from tests.few_shot_task import SmallEncoder


def keep(path, key, value, seconds=0.1):
    finished = FinishedWork(path)
    finished.keep(key, value, seconds)
    return finished


def test_finished_work_is_kept(tmp_path):
    path = tmp_path / "finished.jsonl"
    keep(path, "a", {"x": [1, 2]})
    again = FinishedWork(path)
    assert "a" in again and again.value("a") == {"x": [1, 2]}
    assert "b" not in again
    again.keep("b", 3, 0.1)
    assert again.value("b") == 3
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_finished_work_tells_what_it_took_when_it_was_done(tmp_path):
    path = tmp_path / "finished.jsonl"
    keep(path, "a", 1, seconds=0.05)
    again = keep(path, "b", 2, seconds=0.02)
    assert again.seconds(["a", "b", "a"]) == pytest.approx(0.07)
    assert again.seconds(["a", "c"]) is None
    path.write_text('{"key": "d", "value": 1}\n', encoding="utf-8")  # of an earlier version
    assert FinishedWork(path).value("d") == 1
    assert FinishedWork(path).seconds(["d"]) is None


@pytest.mark.parametrize("end", [b'{"key": "b", "val', b"\xff\xfe", b'{"key": "b"}\n', b"[1]\n"])
def test_a_line_cut_short_or_damaged_counts_as_not_done(tmp_path, end):
    path = tmp_path / "finished.jsonl"
    keep(path, "a", 1)
    path.write_bytes(path.read_bytes() + end)
    finished = FinishedWork(path)
    assert finished.value("a") == 1 and "b" not in finished
    finished.keep("b", 2, 0.1)
    assert FinishedWork(path).value("b") == 2


def test_without_a_file_nothing_is_kept():
    assert keep(None, "a", 1).value("a") == 1
    assert "a" not in FinishedWork()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*finished\.jsonl"):
        keep(tmp_path / "missing" / "finished.jsonl", "a", 1)


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
