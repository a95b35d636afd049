"""Long work in small tasks, each of which is done once, even if workers or runs are killed.

    store = TaskStore(out_url)
    for task, result, kept in store.run(tasks, make_worker, folder=store.folder, workers=8):
        ...
    store.remove()

A task writes a file and returns JSON that describes it. Results are kept in ``.work`` below the
output, so a run that was stopped goes on where it was, on any machine that reaches the output. A
result counts while two things hold: the digest of all that its task depends on is the same, and its
file is there as it was written, byte for byte. Otherwise the task is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from primus_scale.data.index import ShardEntry, parse_shard_entry
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.storage.foreign import parse_json
from shards.tasks.local import Failed
from shards.tasks.workers import run_tasks

WORK_NAME = ".work"
_READERS = 16  # concurrent requests for kept results; object stores answer each in some 20 ms
_READ_BYTES = 2**20


class Task(NamedTuple):
    """key: names its files. settings_digest: of what its result depends on. item: for a worker."""

    key: str
    settings_digest: str
    item: Any


class TaskResult(NamedTuple):
    """A task and its result. kept: by an earlier run."""

    task: Task
    result: Any
    kept: bool


def json_digest(*parts: Any) -> str:
    """32 hexadecimal digits of the JSON of ``parts``."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class TaskStore:
    """The folder ``.work`` below the output at ``out_url``, which is made.

    OSError naming it where that cannot be written.
    """

    def __init__(self, out_url: str) -> None:
        self.folder = Folder(f"{Folder(out_url).url}/{WORK_NAME}")
        with explain_write_errors(self.folder.url):
            self.folder.create()

    def run(
        self,
        tasks: Sequence[Task],
        make_worker: Callable[[], Callable[[Any], Any]],
        *,
        folder: Folder,
        workers: int,
        threads: int = 1,
        gpus: float = 0.0,
        small: bool = False,
        report: Callable[[str], None] = print,
    ) -> Iterator[TaskResult]:
        """Every task with its result, those that were done before first, then as they end.

        A result is JSON with ``file``, the ``ShardEntry`` of what the task has written in
        ``folder`` (None: nothing), or ``Failed``, which is not kept: the task is tried again by
        the next run. ``make_worker`` and the other settings: see
        ``shards.tasks.workers.run_tasks``.
        """
        kept = self._kept_results(tasks, folder)
        yield from (TaskResult(task, kept[task.key], True) for task in tasks if task.key in kept)
        rest = [task for task in tasks if task.key not in kept]
        items = [task.item for task in rest]
        options: dict[str, Any] = {"threads": threads, "gpus": gpus, "small": small}
        for place, result in run_tasks(
            make_worker, items, workers=workers, report=report, **options
        ):
            if not isinstance(result, Failed):
                self._save_result(rest[place], result)
            yield TaskResult(rest[place], result, False)

    def remove(self) -> None:
        """Delete the folder and all that lies in it; results first, then their files."""
        with explain_write_errors(self.folder.url):
            for name in self.folder.names():
                if name.endswith(".json"):
                    self.folder.remove(name)
            self.folder.remove_all()

    def _save_result(self, task: Task, result: Any) -> None:
        entry = {
            "fingerprint": task.settings_digest,
            "result": result,
            "seal": json_digest(result),
        }
        with (
            explain_write_errors(self.folder.url),
            self.folder.staging(f"{task.key}.json") as path,
        ):
            path.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")

    def _kept_results(self, tasks: Sequence[Task], folder: Folder) -> dict[str, Any]:
        """Results that were kept and still count, by key; those that do not are deleted."""
        names, sizes = {*self.folder.names()}, folder.sizes()
        existing = [task for task in tasks if f"{task.key}.json" in names]
        kept = {}
        with ThreadPoolExecutor(_READERS) as pool:
            results = pool.map(lambda task: self._valid_result(task, folder, sizes), existing)
            for task, result in zip(existing, results, strict=True):
                if result is not None:
                    kept[task.key] = result
                else:  # now, before the task writes its files again
                    self._remove_result(f"{task.key}.json")
        return kept

    def _valid_result(
        self, task: Task, folder: Folder, sizes: dict[str, int]
    ) -> dict[str, Any] | None:
        """The kept result if it is of this task, and its file as it was written; None if not."""
        name = f"{task.key}.json"
        try:
            entry = parse_json(self.folder.read(name), self.folder.locate(name))
            result: dict[str, Any] = entry["result"]
            sealed = entry["fingerprint"] == task.settings_digest and (
                entry["seal"] == json_digest(result)
            )
            file = result["file"]
            if sealed and (file is None or _is_whole(parse_shard_entry(file), folder, sizes)):
                return result
        except (ConnectionError, TimeoutError):
            raise  # the result may be valid; the storage does not answer now
        except (LookupError, TypeError, ValueError, OSError):
            pass  # it was not fully written when a machine failed, or was altered
        return None

    def _remove_result(self, name: str) -> None:
        """Remove a kept result, or a folder in its place."""
        with explain_write_errors(self.folder.url):
            try:
                self.folder.remove(name)
            except (IsADirectoryError, PermissionError):
                Folder(self.folder.locate(name)).remove_all()


def _is_whole(file: ShardEntry, folder: Folder, sizes: dict[str, int]) -> bool:
    """Whether a file is there as it was written."""
    if sizes.get(file.name) != file.size:
        return False
    digest = hashlib.sha256()
    with folder.open(file.name) as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest() == file.sha256
