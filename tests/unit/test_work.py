import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from primus_scale.storage.folder import Folder
from shards.tasks.local import Failed
from shards.tasks.store import Task, TaskStore, json_digest


def squares(done: list[int]) -> Callable[[], Callable[[int], object]]:
    """A worker that squares numbers, notes them in ``done``, and fails on negative ones."""

    def worker(number: int) -> object:
        done.append(number)
        return Failed(f"{number} is negative") if number < 0 else square(number)

    return lambda: worker


def square(number: int) -> dict[str, object]:
    return {"file": None, "square": number * number}


def tasks(*numbers: int, version: int = 1) -> list[Task]:
    return [Task(f"number-{n}", json_digest("square", n, version), n) for n in numbers]


def run(folder: Path, wanted: list[Task]) -> tuple[dict[str, object], list[int]]:
    """Results by key, and the numbers that were worked on."""
    done: list[int] = []
    results = list(
        TaskStore(str(folder)).run(wanted, squares(done), folder=Folder(str(folder)), workers=1)
    )
    assert [one.task.item for one in results if not one.kept] == done
    return {one.task.key: one.result for one in results}, done


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    assert run(tmp_path, tasks(2, 3)) == ({"number-2": square(2), "number-3": square(3)}, [2, 3])
    assert run(tmp_path, tasks(2, 3, 4)) == (
        {"number-2": square(2), "number-3": square(3), "number-4": square(4)},
        [4],
    )


def test_a_task_with_another_fingerprint_is_done_again(tmp_path: Path) -> None:
    run(tmp_path, tasks(2, 3))
    assert run(tmp_path, tasks(2, 3, version=2))[1] == [2, 3]
    assert run(tmp_path, tasks(2, 3, version=2))[1] == []


def test_a_stale_result_is_gone_before_its_task_starts(tmp_path: Path) -> None:
    """Or a kill would leave it next to files that the task has written anew."""
    run(tmp_path, tasks(2))

    def worker(number: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(
            TaskStore(str(tmp_path)).run(
                tasks(2, version=2), lambda: worker, folder=Folder(str(tmp_path)), workers=1
            )
        )
    assert list((tmp_path / ".work").iterdir()) == []


def test_failed_tasks_are_tried_again(tmp_path: Path) -> None:
    results, _ = run(tmp_path, tasks(-1, 2))
    assert results == {"number--1": Failed("-1 is negative"), "number-2": square(2)}
    assert run(tmp_path, tasks(-1, 2))[1] == [-1]


def test_work_is_kept_until_the_moment_of_an_error(tmp_path: Path) -> None:
    def worker(number: int) -> dict[str, object]:
        if number == 3:
            raise OSError("the storage is gone")
        return square(number)

    with pytest.raises(OSError, match="gone"):
        list(
            TaskStore(str(tmp_path)).run(
                tasks(1, 2, 3, 4), lambda: worker, folder=Folder(str(tmp_path)), workers=1
            )
        )
    assert run(tmp_path, tasks(1, 2, 3, 4))[1] == [3, 4]


def test_results_are_kept_as_json_and_removed_with_the_folder(tmp_path: Path) -> None:
    run(tmp_path, tasks(5))
    (kept,) = (tmp_path / ".work").iterdir()
    assert json.loads(kept.read_text())["result"] == square(5)
    TaskStore(str(tmp_path)).remove()
    assert list(tmp_path.iterdir()) == []
    TaskStore(str(tmp_path)).remove()


@pytest.mark.parametrize("changed", [("a", 1, 2.5), ("b", 1, 2.0), ("a", {"x": 1}, 2.0)])
def test_fingerprints_differ_with_their_parts(changed: tuple) -> None:
    assert json_digest("a", 1, 2.0) != json_digest(*changed)


def test_fingerprints_do_not_depend_on_the_order_of_keys() -> None:
    assert json_digest({"x": 1, "y": 2}) == json_digest({"y": 2, "x": 1})


def file_tasks(*numbers: int) -> list[Task]:
    return [Task(f"file-{n}", json_digest(n), n) for n in numbers]


def write_files(folder: Path, wanted: list[Task]) -> list[int]:
    """Tasks that write a file each; the numbers of those that were worked on."""
    done = []

    def worker(number: int) -> dict[str, object]:
        done.append(number)
        content = b"x" * number
        (folder / f"{number}.txt").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        file = {"name": f"{number}.txt", "size": number, "sha256": digest, "records": []}
        return {"file": file}

    run = TaskStore(str(folder)).run(wanted, lambda: worker, folder=Folder(str(folder)), workers=1)
    assert [one.result["file"]["size"] for one in run]
    return done


def test_a_result_does_not_count_without_its_whole_file(tmp_path: Path) -> None:
    assert write_files(tmp_path, file_tasks(3, 4, 5)) == [3, 4, 5]
    (tmp_path / "3.txt").unlink()
    (tmp_path / "5.txt").write_text("xx")
    assert write_files(tmp_path, file_tasks(3, 4, 5)) == [3, 5]
    assert write_files(tmp_path, file_tasks(3, 4, 5)) == []


def test_a_result_does_not_count_where_its_file_was_altered(tmp_path: Path) -> None:
    write_files(tmp_path, file_tasks(3, 4))
    (tmp_path / "4.txt").write_text("xxyx")
    assert write_files(tmp_path, file_tasks(3, 4)) == [4]
    assert (tmp_path / "4.txt").read_text() == "xxxx"


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b'{"finger',
        b"null",
        b"[]",
        b"{}",
        b'{"fingerprint": "x", "result": null}',
        b'{"fingerprint": "x", "result": {}, "seal": "x"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_result_that_did_not_reach_the_disk_is_made_again(tmp_path: Path, left: bytes) -> None:
    run(tmp_path, tasks(2, 3))
    (tmp_path / ".work/number-2.json").write_bytes(left)
    assert run(tmp_path, tasks(2, 3))[1] == [2]


def test_no_flipped_bit_of_a_result_is_believed(tmp_path: Path) -> None:
    write_files(tmp_path, file_tasks(3))
    kept = tmp_path / ".work/file-3.json"
    content = kept.read_bytes()
    whole = json.loads(content)
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1 << place % 7
        kept.write_bytes(altered)
        try:
            same = json.loads(altered) == whole
        except ValueError:
            same = False
        assert write_files(tmp_path, file_tasks(3)) == ([] if same else [3])


def test_a_folder_in_the_place_of_a_result_is_removed(tmp_path: Path) -> None:
    run(tmp_path, tasks(2, 3))
    (tmp_path / ".work/number-2.json").unlink()
    (tmp_path / ".work/number-2.json").mkdir()
    assert run(tmp_path, tasks(2, 3))[1] == [2]
    assert run(tmp_path, tasks(2, 3))[1] == []
