"""``shards build NAME``: raw recordings to window shards, many at once, each exactly once.

    job = IngestJob("gopro", "s3://bucket/rides", "s3://bucket/shards", settings)
    report = ingest(job, workers=32)

First, a worker makes a tar of windows of each recording, in the output's ``.work`` folder
(``shards.tasks.store``). Then all windows are copied into the shards, recording by recording in the
order of the listing, with devices of one moment side by side. (Packing has an order of its own,
``shards.embed.order``.) Both steps continue after a kill, and neither depends on the number of
workers. A recording that cannot be read is listed in ``ingest.json``, and the others go on. Only an
output that cannot be written, or a source that is gone, ends the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import fsspec
import numpy as np

from primus_scale.counted import counted
from primus_scale.data.index import ShardEntry, ShardIndex, parse_shard_entry, write_index
from primus_scale.data.record_place import list_places
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.sample import hash64
from primus_scale.storage.apart import check_apart
from primus_scale.storage.folder import Folder, explain_write_errors, is_local
from shards.ingest.copies import find_copies
from shards.ingest.recording_maker import (
    IngestJob,
    RecordingMaker,
    RecordingRequest,
    RecordingResult,
)
from shards.ingest.summary import explain_no_windows
from shards.recording import RecordingRef
from shards.report import INGEST_NAME, IngestReport, RecordingReport
from shards.tasks.local import Failed
from shards.tasks.progress import TaskProgress, print_line
from shards.tasks.store import Task, TaskStore, json_digest
from shards.write.checks import ChannelStatistics
from shards.write.copying import ShardCopier, plan_shards
from shards.write.people import people_by_dataset
from shards.write.shard_file import shard_name
from shards.write.writer import check_output, open_output, remove_other_shards

_VERSION_READERS = 16  # concurrent requests for the state of files
_MOST_UNREAD = 1000  # lines on files of no recording
_SMALL_BYTES = 256 * 2**20  # of recordings: a local cluster takes as long to start as to read them


def ingest(
    job: IngestJob,
    *,
    workers: int | None = 1,
    overwrite: bool = False,
    report: Callable[[str], None] = print_line,
) -> IngestReport:
    """Write the window shards of all recordings at ``job.source`` to ``job.out``.

    workers: Ray workers (``shards.tasks.workers``); None: one a core, which are forks of this
    process where source and output are local and the recordings small. overwrite: replace shards
    that already lie there. report: called with lines of progress. The same call continues a run
    that was stopped.

    FileExistsError where the output holds shards and ``overwrite`` is not set; what the reader's
    ``recordings`` raises; ValueError where not one window was made (``ingest.json`` is written
    all the same, and says why) or the output lies in the source; OSError where the output cannot
    be written, or another process writes there.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    check_apart(job.out, [job.source], inside=True)  # readers take shards for no recordings
    with locked_folder(job.out, instead="another --out"):
        check_output(job.out, overwrite)
        return _write_shards(job, workers, report)


def _write_shards(
    job: IngestJob, workers: int | None, report: Callable[[str], None]
) -> IngestReport:
    """The work of ``ingest``, with the output locked."""
    store = TaskStore(job.out)
    reader = job.create_reader()
    refs = reader.recordings()
    unread = reader.unread(refs)
    report(f"{counted(len(refs), 'recording')} in {job.source}")
    tasks = _recording_tasks(job, [ref for ref in refs if _is_utf8(ref)])
    pool = _choose_workers(job, tasks, workers)
    results = _ingest_recordings(job, refs, tasks, store, pool, report)
    within = (line for one in results for line in one.report.unread)
    found = IngestReport(
        reader=job.reader,
        source=job.source,
        settings={**asdict(job.settings), "options": dict(job.options)},
        recordings=tuple(one.report for one in results),
        unread=tuple([*unread, *within][:_MOST_UNREAD]),
        copies=find_copies([(one.report.name, one.samples) for one in results]),
    )
    if not any(one.uids for one in results):
        _write_report(found, job.out)
        raise ValueError(
            f"no window came of {counted(len(refs), 'recording')} in {job.source}: "
            f"{explain_no_windows(found)}. {Folder(job.out).locate(INGEST_NAME)} has the whole "
            "report; correct the source or the settings, and run it again"
        )
    check_uids(results)
    open_output(job.out)
    shards = _copy_windows(job, results, store, pool, report)
    remove_other_shards(job.out, shards)
    _write_report(found, job.out)
    write_index(_build_index(job, results, shards), job.out)
    if all(one.report.error is None for one in results):
        store.remove()
    else:
        report(
            f"what was read is kept in {store.folder.url}: mend the recordings that failed and "
            "run it again with --overwrite, and only those are read; or delete it"
        )
    return found


class _Workers(NamedTuple):
    """number: at most so many at once. small: the work is so small that they need no cluster."""

    number: int
    small: bool


def _choose_workers(job: IngestJob, tasks: Sequence[Task], workers: int | None) -> _Workers:
    """The workers that were asked for, or those that suit the size of the recordings."""
    if workers is not None:
        return _Workers(workers, small=False)
    versions = {path: text for task in tasks for path, text in task.item.versions.items()}
    size = sum(int(text.split()[0]) for text in versions.values())  # a version begins with it
    # Connections to object stores do not outlast a fork.
    local = all(is_local(fsspec.core.url_to_fs(url)[0]) for url in (job.source, job.out))
    return _Workers(os.cpu_count() or 1, small=local and size <= _SMALL_BYTES)


def _ingest_recordings(
    job: IngestJob,
    refs: Sequence[RecordingRef],
    tasks: Sequence[Task],
    store: TaskStore,
    pool: _Workers,
    report: Callable[[str], None],
) -> list[RecordingResult]:
    """The windows of every recording, in the order of the listing."""
    results = {
        ref.name: _failed(job, ref, "its name is no UTF-8; rename it")
        for ref in refs
        if not _is_utf8(ref)
    }
    progress = TaskProgress("ingest", len(tasks), "recordings", report)
    windows = failed = 0
    done = store.run(
        tasks,
        partial(RecordingMaker, job, store.folder.url),
        folder=store.folder,
        workers=min(pool.number, len(tasks)),
        small=pool.small,
        report=report,
    )
    for task, result, kept in done:
        ref = task.item.ref
        if isinstance(result, Failed):
            failed += 1
            results[ref.name] = _failed(job, ref, result.why)
        else:
            results[ref.name] = RecordingResult.parse(result)
        windows += results[ref.name].report.windows
        progress.add(
            note=f"{counted(windows, 'window')}{f', {failed} failed' if failed else ''}", kept=kept
        )
    return [results[ref.name] for ref in refs]


def _failed(job: IngestJob, ref: RecordingRef, why: str) -> RecordingResult:
    name = ref.name.encode("utf-8", "backslashreplace").decode()
    return RecordingResult(RecordingReport(job.reader, name, error=why))


def _is_utf8(ref: RecordingRef) -> bool:
    """Whether its names can be written into reports; old archives give others."""
    try:
        "".join((ref.name, *ref.files)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _recording_tasks(job: IngestJob, refs: Sequence[RecordingRef]) -> list[Task]:
    """A task for each recording; it is done again where files, settings or version changed."""
    source = job.create_reader().source
    paths = sorted({path for ref in refs for path in ref.files})

    def version_of(path: str) -> str:
        try:
            return source.version(path)
        except (FileNotFoundError, ValueError):
            return "none"  # opening the recording reports it

    with ThreadPoolExecutor(_VERSION_READERS) as threads:
        versions = dict(zip(paths, threads.map(version_of, paths), strict=True))
    # Without settings that only the copying depends on.
    settings = asdict(replace(job.settings, shard_bytes=0))
    general = [version("primus-scale"), job.reader, dict(job.options), job.source, settings]
    tasks = []
    for ref in refs:
        key = f"recording-{hash64(ref.name) % 2**64:016x}"
        own = {path: versions[path] for path in ref.files}
        depends = json_digest(general, ref.name, own, dict(ref.details))
        existing = {path: stamp for path, stamp in own.items() if stamp != "none"}
        tasks.append(Task(key, depends, RecordingRequest(key, ref, existing)))
    return tasks


def check_uids(results: Sequence[RecordingResult]) -> None:
    """ValueError where a window is there twice."""
    uids = np.concatenate([np.array(one.uids, np.int64) for one in results])
    values, counts = np.unique(uids, return_counts=True)
    if (counts > 1).any():
        uid = int(values[np.argmax(counts)])
        names = sorted(one.report.name for one in results if uid in one.uids)
        raise ValueError(
            f"window {uid} was made of {' and of '.join(names)}; their data set, name and devices "
            "must not be the same: give the recordings names of their own"
        )


def _copy_windows(
    job: IngestJob,
    results: Sequence[RecordingResult],
    store: TaskStore,
    pool: _Workers,
    report: Callable[[str], None],
) -> list[ShardEntry]:
    """The shards, written from the recordings' tars in their order."""
    files = [one.file for one in results if one.file]
    places = list_places(files)
    plan = plan_shards(places, [place.entry.length for place in places], job.settings.shard_bytes)
    contents = json_digest([file.sha256 for file in files])
    tasks = []
    for number, places in enumerate(plan):
        name = shard_name(number)
        depends = json_digest(contents, job.settings.shard_bytes, name)
        tasks.append(Task(name, depends, (name, places)))
    progress = TaskProgress("write", sum(map(len, plan)), "windows", report)
    done = store.run(
        tasks,
        partial(ShardCopier, store.folder.url, job.out),
        folder=Folder(job.out),
        workers=min(pool.number, len(tasks)),
        small=pool.small,
        report=report,
    )
    entries = {}
    for task, result, kept in done:
        if isinstance(result, Failed):
            raise OSError(f"{Folder(job.out).locate(task.key)}: {result.why}; run it again")
        entries[task.key] = parse_shard_entry(result["file"])
        progress.add(len(entries[task.key].records), kept=kept)
    return [entries[task.key] for task in tasks]


def _build_index(
    job: IngestJob, results: Sequence[RecordingResult], shards: Sequence[ShardEntry]
) -> ShardIndex:
    settings = job.settings
    statistics = ChannelStatistics(len(settings.channels))
    for one in results:
        if one.file:
            statistics.add_sums(one.sums)
    return ShardIndex(
        kind="window",
        channels=settings.channels,
        units=settings.units,
        rate_hz=settings.rate_hz,
        window_samples=settings.window_samples,
        mean=statistics.mean(),
        std=statistics.std(),
        shards=tuple(shards),
        labels=tuple(sorted({label for one in results for label in one.labels})),
        provenance={
            "reader": job.reader,
            "source": job.source,
            "settings": asdict(settings),
            "people": people_by_dataset(
                (one.report.dataset, one.report.person) for one in results if one.report.windows
            ),
        },
    )


def _write_report(found: IngestReport, out_url: str) -> None:
    folder = Folder(out_url)
    text = json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False)
    with explain_write_errors(folder.url), folder.staging(INGEST_NAME) as path:
        path.write_text(text + "\n", encoding="utf-8")
