"""``shards build NAME``: raw recordings to window shards, many at once, each exactly once.

    job = IngestJob("gopro", "s3://bucket/rides", "s3://bucket/shards", settings)
    report = ingest(job, workers=32)

A recording becomes a tar of windows in the output's ``.work`` folder (``shards.work``), whichever
worker has it; then all windows are dealt into the shards in random order (``shards.shuffle``).
Both steps go on where they were after a kill, and neither depends on the number of workers. A
recording that cannot be read is listed in ``ingest.json``, and the others go on; only an output
that cannot be written, or a source that is gone, ends the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version

from primus_scale.data.index import ShardEntry, ShardIndex, parse_shard_entry, write_index
from primus_scale.data.storage import Folder, explain_write_errors
from primus_scale.sample import hash64
from shards.checks import ChannelStatistics
from shards.parallel import Failed
from shards.progress import Progress
from shards.recording import RecordingRef
from shards.recording_maker import IngestJob, Made, RecordingMaker
from shards.report import INGEST_NAME, IngestReport, RecordingReport
from shards.shuffle import ShardCopier, plan_shards
from shards.work import Task, Workshop, fingerprint
from shards.writer import open_output, remove_other_shards, shard_name

_SIZE_READERS = 16  # concurrent requests for the sizes of files
_MOST_NAMED = 3  # recordings in an error


def ingest(
    job: IngestJob,
    *,
    workers: int = 1,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> IngestReport:
    """Write the window shards of all recordings at ``job.source`` to ``job.out``.

    workers: Ray workers (``shards.parallel``). overwrite: replace shards that already lie there.
    report: is told the progress in lines. The same call goes on with a run that was stopped.

    FileExistsError where the output holds shards and ``overwrite`` is not set; what the reader's
    ``recordings`` raises; ValueError where not one window was made (``ingest.json`` is written
    all the same, and says why); OSError where the output cannot be written.
    """
    open_output(job.out, overwrite)
    workshop = Workshop(job.out)
    refs = job.create_reader().recordings()
    report(f"{len(refs)} recordings in {job.source}")
    made = _make_all(job, refs, workshop, workers, report)
    found = IngestReport(
        reader=job.reader,
        source=job.source,
        settings={**asdict(job.settings), "options": dict(job.options)},
        recordings=tuple(one.report for one in made),
    )
    _write_report(found, job.out)
    _check_made(made, job)
    shards = _deal(job, made, workshop, workers, report)
    remove_other_shards(job.out, shards)
    write_index(_index(job, made, shards), job.out)
    workshop.remove()
    return found


def _make_all(
    job: IngestJob,
    refs: Sequence[RecordingRef],
    workshop: Workshop,
    workers: int,
    report: Callable[[str], None],
) -> list[Made]:
    """The windows of every recording, in the order of the listing."""
    tasks = _tasks(job, refs)
    progress = Progress("ingest", len(tasks), "recordings", report)
    made: dict[str, Made] = {}
    windows = failed = 0
    make_worker = partial(RecordingMaker, job, workshop.folder.url)
    for task, result, kept in workshop.run(tasks, make_worker, workers=workers, report=report):
        if isinstance(result, Failed):
            failed += 1
            _, ref = task.item
            made[task.key] = Made(RecordingReport(job.reader, ref.name, error=result.why))
        else:
            made[task.key] = Made.parse(result)
        windows += made[task.key].report.windows
        note = f"{windows} windows{f', {failed} failed' if failed else ''}"
        progress.add(note=note, kept=kept)
    return [made[task.key] for task in tasks]


def _tasks(job: IngestJob, refs: Sequence[RecordingRef]) -> list[Task]:
    """A task for each recording; it is done anew where files, settings or version changed."""
    source = job.create_reader().source
    paths = sorted({path for ref in refs for path in ref.files})

    def size(path: str) -> int:
        try:
            return source.size(path)
        except OSError:
            return -1  # opening the recording will tell

    with ThreadPoolExecutor(_SIZE_READERS) as pool:
        sizes = dict(zip(paths, pool.map(size, paths), strict=True))
    settings = [version("primus-scale"), job.reader, dict(job.options), asdict(job.settings)]
    tasks = []
    for ref in refs:
        key = f"recording-{hash64(ref.name) % 2**64:016x}"
        files = [[path, sizes[path]] for path in ref.files]
        depends = fingerprint(settings, job.source, ref.name, files, dict(ref.details))
        tasks.append(Task(key, depends, (key, ref)))
    return tasks


def _check_made(made: Sequence[Made], job: IngestJob) -> None:
    """ValueError where there is no window, or where one is there twice."""
    counts = Counter(uid for one in made for uid in one.uids)
    if not counts:
        raise ValueError(_why_nothing(made, job))
    uid, count = counts.most_common(1)[0]
    if count > 1:
        names = sorted({one.report.name for one in made if uid in one.uids})
        raise ValueError(
            f"window {uid} was made {count} times, of {' and '.join(names)}; their data set, name "
            "and devices must not be the same: give the recordings names of their own"
        )


def _why_nothing(made: Sequence[Made], job: IngestJob) -> str:
    errors = [f"{one.report.name}: {one.report.error}" for one in made if one.report.error]
    refused: Counter[str] = Counter()
    for one in made:
        for device in one.report.devices:
            refused.update(device.refused)
    reasons = [f"{count} windows refused: {reason}" for reason, count in refused.most_common()]
    told = "; ".join([*errors[:_MOST_NAMED], *reasons]) or (
        f"all recordings are shorter than a window ({job.settings.window_s:g} s)"
    )
    more = len(errors) - _MOST_NAMED
    return (
        f"no window came of {len(made)} recordings in {job.source}: {told}"
        f"{f'; and {more} more' if more > 0 else ''}. {Folder(job.out).locate(INGEST_NAME)} has "
        "the whole report; correct the source or the settings, and run it again"
    )


def _deal(
    job: IngestJob,
    made: Sequence[Made],
    workshop: Workshop,
    workers: int,
    report: Callable[[str], None],
) -> list[ShardEntry]:
    """The shards, written from the recordings' tars in random order."""
    files = [one.file for one in made if one.file]
    plan = plan_shards(files, job.settings.seed, job.settings.shard_bytes)
    contents = [file.sha256 for file in files]
    tasks = []
    for number, places in enumerate(plan):
        name = shard_name(number)
        depends = fingerprint(contents, job.settings.seed, job.settings.shard_bytes, name)
        tasks.append(Task(name, depends, (name, places)))
    progress = Progress("shuffle", sum(map(len, plan)), "windows", report)
    make_worker = partial(ShardCopier, workshop.folder.url, job.out)
    entries = {}
    for task, result, kept in workshop.run(tasks, make_worker, workers=workers, report=report):
        if isinstance(result, Failed):
            raise OSError(f"{Folder(job.out).locate(task.key)}: {result.why}; run it again")
        entries[task.key] = parse_shard_entry(result)
        progress.add(len(entries[task.key].records), kept=kept)
    return [entries[task.key] for task in tasks]


def _index(job: IngestJob, made: Sequence[Made], shards: Sequence[ShardEntry]) -> ShardIndex:
    settings = job.settings
    statistics = ChannelStatistics(len(settings.channels))
    for one in made:
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
        labels=tuple(sorted({label for one in made for label in one.labels})),
        provenance={"reader": job.reader, "source": job.source, "settings": asdict(settings)},
    )


def _write_report(found: IngestReport, out_url: str) -> None:
    folder = Folder(out_url)
    text = json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False)
    with explain_write_errors(folder.url), folder.staging(INGEST_NAME) as path:
        path.write_text(text + "\n", encoding="utf-8")
