"""``shards embed``: frozen teachers over window shards, written as packed shards.

    embed("s3://bucket/windows", "s3://bucket/packed", video="openai/clip-vit-base-patch32",
          signal="handcrafted", device="cuda", workers=8)

First, groups of windows are embedded in the order of the source, and written to tars in the
output's ``.work`` folder (``shards.tasks.store``). In a group, a picture that devices of one moment
share goes through the teacher once. Then the windows are packed in another order
(``shards.embed.order``): by sessions, so that a batch can hold many windows of one session, or
shuffled, so that every block is a random sample of the whole set. Both steps are divided among
workers. After a kill they continue where they were, and the bytes that they write do not depend on
the number of workers and threads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from primus_scale.config import TeachersConfig
from primus_scale.counted import counted
from primus_scale.data.index import (
    ShardEntry,
    ShardIndex,
    TeacherSpace,
    parse_shard_entry,
    write_index,
)
from primus_scale.data.record_place import list_places
from primus_scale.data.shard_set import ShardSet
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.sample import WindowFormat
from primus_scale.storage.apart import check_apart
from primus_scale.storage.folder import Folder
from primus_scale.teachers import Teacher, build_teachers, spaces_of
from shards.embed.group_embedder import GroupEmbedder, GroupRequest, unpack_columns
from shards.embed.grouping import plan_groups
from shards.embed.order import ORDERS, WindowColumns
from shards.embed.packing import ShardPacker, count_row_bytes, plan_packed_shards
from shards.tasks.local import Failed, on_cluster, runs_in_process
from shards.tasks.progress import TaskProgress, print_line
from shards.tasks.store import Task, TaskStore, json_digest
from shards.write.writer import check_output, open_output, remove_other_shards

GROUP_WINDOWS = 16384  # windows of a group; frames and texts that they share are embedded once
GROUP_BYTES = 256 * 2**20  # of a group's records, which are held in memory

Result = TypeVar("Result")


@dataclass(frozen=True)
class _EmbeddingPool:
    """How the work is divided. workers: their number. threads, gpus: of each worker."""

    workers: int
    threads: int
    gpus: float
    report: Callable[[str], None]


@dataclass(frozen=True)
class _Packing:
    """How windows are packed. order: of ``ORDERS``. block: windows a record, at most."""

    order: str
    block: int
    seed: int


@dataclass(frozen=True)
class _Teachers:
    """The teachers to run. build: makes them in a worker. spaces: by modality."""

    build: Callable[[], Mapping[str, Teacher]]
    spaces: Mapping[str, TeacherSpace]
    device: str
    batch: int


class _Embedded(NamedTuple):
    """Embedded windows in the order of the source. files: their tars.

    windows: the columns that the order of packing depends on. counts: of windows with an embedding,
    by modality.
    """

    files: list[ShardEntry]
    windows: WindowColumns
    counts: Counter[str]


def embed(
    windows_url: str,
    out_url: str,
    *,
    video: str | None = None,
    text: str | None = None,
    signal: Literal["handcrafted"] | None = None,
    order: str = "sessions",
    block: int = 256,
    seed: int = 0,
    device: str = "auto",
    batch: int = 64,
    workers: int = 1,
    threads: int | None = None,
    gpus_per_worker: float = 1.0,
    overwrite: bool = False,
    report: Callable[[str], None] = print_line,
) -> ShardIndex:
    """Embed the window shards at ``windows_url`` and write packed shards to ``out_url``.

    video, text, signal: names of teachers as in ``TeachersConfig``; at least one. order: of
    ``ORDERS``. block: windows a record, at most. seed: of the order. batch: frames, texts or
    windows in one forward pass. workers: Ray workers (``shards.tasks.workers``). threads: of each
    worker, that decode pictures and run teachers (None: this machine's cores divided by workers; 1
    on an existing cluster). gpus_per_worker: share of a device, with device cuda. overwrite:
    replace shards that already lie at ``out_url``. report: called with lines of progress. The same
    call continues a run that was stopped.

    Raises ValueError for settings that do not fit, unknown teachers, a teacher that has nothing to
    embed, and unreadable frames (naming the window); FileExistsError where the output holds shards
    and ``overwrite`` is not set; OSError where the output cannot be written, or another process
    writes there; and as ``ShardSet.open``. Where it fails, ``out_url`` is left without an index.
    """
    for name, value in {"block": block, "batch": batch, "workers": workers}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}, and none of {', '.join(ORDERS)}")
    device = _choose_device(device, workers, report)
    gpus = _check_gpus(gpus_per_worker) if device == "cuda" else 0.0
    pool = _EmbeddingPool(workers, _choose_threads(threads, workers), gpus, report)
    source = _open_source(windows_url, out_url)
    named = TeachersConfig(video=video, text=text, signal=signal, batch=batch)
    teachers = _set_up_teachers(named, source.index.window_format, device, pool)
    with locked_folder(out_url, instead="another --out"):
        check_output(out_url, overwrite)
        index = _write_packed_shards(source, out_url, teachers, _Packing(order, block, seed), pool)
    report(f"{out_url}: {counted(index.windows, 'window')} packed")
    return index


def _write_packed_shards(
    source: ShardSet, out_url: str, teachers: _Teachers, packing: _Packing, pool: _EmbeddingPool
) -> ShardIndex:
    """The work of ``embed``, with the output locked."""
    store = TaskStore(out_url)
    embedded = _embed_groups(source, store, teachers, pool)
    _check_counts(embedded, source.folders[0].url)
    open_output(out_url)
    shards = _pack(source, out_url, store, embedded, teachers.spaces, packing, pool)
    remove_other_shards(out_url, shards)
    index = replace(
        source.index,
        kind="packed",
        shards=shards,
        labels=source.labels,
        teachers=dict(teachers.spaces),
        provenance={
            **source.index.provenance,
            "packing_order": packing.order,
            "packing_seed": packing.seed,
        },
    )
    write_index(index, out_url)
    store.remove()
    for modality, count in embedded.counts.items():
        if count < index.windows:
            pool.report(
                f"{modality} of {count:,} of {index.windows:,} windows; the others have none"
            )
    return index


def _choose_device(device: str, workers: int, report: Callable[[str], None]) -> str:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and on_cluster():
            report("teachers run on CPUs, as this machine has no GPU; cuda uses the cluster's")
    if device == "cuda" and runs_in_process(workers) and not torch.cuda.is_available():
        raise ValueError(
            "device is cuda, but PyTorch finds none on this machine; set it to cpu, or "
            "RAY_ADDRESS to a cluster that has some"
        )
    return device


def _check_gpus(gpus: float) -> float:
    if not 0 < gpus <= 1:
        raise ValueError(
            f"gpus_per_worker must be above 0 and at most 1, got {gpus:g}: a worker runs its "
            "teachers on one device; raise workers to use more devices"
        )
    return gpus


def _choose_threads(threads: int | None, workers: int) -> int:
    if threads is None:
        return 1 if on_cluster() else max(1, (os.cpu_count() or 1) // workers)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return threads


def _set_up_teachers(
    config: TeachersConfig, windows: WindowFormat, device: str, pool: _EmbeddingPool
) -> _Teachers:
    # On the CPU, for their spaces only: the devices are for the workers.
    teachers = build_teachers(config, windows, "cpu")
    if not teachers:
        raise ValueError("no teacher is named; give at least one of --video, --text, --signal")
    build: Callable[[], Mapping[str, Teacher]] = partial(build_teachers, config, windows, device)
    if device == "cpu" and runs_in_process(pool.workers):
        build = partial(dict, teachers)  # the worker is this process
    return _Teachers(build, spaces_of(teachers), device, config.batch)


def _open_source(windows_url: str, out_url: str) -> ShardSet:
    check_apart(out_url, [windows_url])
    source = ShardSet.open(windows_url)
    if source.index.kind != "window":
        raise ValueError(
            f"{windows_url} holds {source.index.kind} shards, which have no frames; give the "
            "window shards that primus-scale shards build writes"
        )
    return source


def _embed_groups(
    source: ShardSet,
    store: TaskStore,
    teachers: _Teachers,
    pool: _EmbeddingPool,
) -> _Embedded:
    """Embed the windows of ``source`` in groups."""
    index, folder = source.index, source.folders[0]
    contents = json_digest([shard.sha256 for shard in index.shards])
    keys = {modality: space.key for modality, space in teachers.spaces.items()}
    numerics = [version("primus-scale"), torch.__version__, teachers.device, teachers.batch]
    limits = {"windows": GROUP_WINDOWS, "size": GROUP_BYTES}
    groups = plan_groups(folder.url, list_places(index.shards), **limits)
    tasks, start = [], 0
    for number, group in enumerate(groups):
        key = f"group-{number:06d}"
        depends = json_digest(contents, keys, numerics, start, len(group))
        tasks.append(Task(key, depends, GroupRequest(f"{key}.tar", group)))
        start += len(group)
    make_worker = partial(
        GroupEmbedder,
        folder.url,
        store.folder.url,
        teachers.build,
        teachers.spaces,
        (len(index.channels), index.window_samples),
        pool.threads,
    )
    made = _run("embed", store, store.folder, tasks, make_worker, pool, _parse_group)
    columns = zip(*(columns for _, columns, _ in made), strict=True)
    windows = WindowColumns(*map(np.concatenate, columns))
    _check_uids(windows.uid, folder.url)
    counts: Counter[str] = Counter(dict.fromkeys(teachers.spaces, 0))
    for _, _, embedded in made:
        counts.update(embedded)
    return _Embedded([file for file, _, _ in made], windows, counts)


def _check_counts(embedded: _Embedded, url: str) -> None:
    """ValueError where a teacher had nothing to embed."""
    for modality, count in embedded.counts.items():
        if not count:
            raise ValueError(
                f"no window of {url} has {modality}, so its teacher has nothing to embed; leave "
                f"--{modality} out, or build the shards with {modality}"
            )


def _parse_group(result: Any) -> tuple[ShardEntry, WindowColumns, dict[str, int]]:
    columns = unpack_columns(result["windows"])
    return parse_shard_entry(result["file"]), columns, dict(result["embedded"])


def _parse_shard(result: Any) -> ShardEntry:
    return parse_shard_entry(result["file"])


def _check_uids(uids: np.ndarray, url: str) -> None:
    values, counts = np.unique(uids, return_counts=True)
    if (counts > 1).any():
        twice = values[np.argmax(counts)]
        raise ValueError(
            f"window {twice} is in {url} twice: primus-scale shards verify {url} names the record; "
            "build the shards again without it"
        )


def _pack(
    source: ShardSet,
    out_url: str,
    store: TaskStore,
    embedded: _Embedded,
    spaces: Mapping[str, TeacherSpace],
    packing: _Packing,
    pool: _EmbeddingPool,
) -> tuple[ShardEntry, ...]:
    """Write the packed shards from the tars of the groups; returns their entries."""
    plan = plan_packed_shards(
        list_places(embedded.files),
        ORDERS[packing.order](embedded.windows, packing.block, packing.seed),
        count_row_bytes(source.index, spaces),
    )
    contents = json_digest([file.sha256 for file in embedded.files])
    settings = [version("primus-scale"), contents, list(source.labels), asdict(packing)]
    tasks = [
        Task(shard.name, json_digest(settings, shard.first, shard.windows), shard) for shard in plan
    ]
    make_worker = partial(
        ShardPacker,
        store.folder.url,
        out_url,
        sessions=packing.order == "sessions",
        labels=source.labels,
        spaces=dict(spaces),
    )
    pool = replace(pool, threads=1, gpus=0.0)
    return tuple(_run("pack", store, Folder(out_url), tasks, make_worker, pool, _parse_shard))


def _run(
    what: str,
    store: TaskStore,
    folder: Folder,
    tasks: Sequence[Task],
    make_worker: Callable[[], Callable[[Any], Any]],
    pool: _EmbeddingPool,
    parse: Callable[[Any], Result],
) -> list[Result]:
    """Do tasks that write into ``folder``; returns their results, parsed, in their order.

    OSError where a task fails.
    """
    windows = sum(task.item.windows for task in tasks)
    progress = TaskProgress(what, windows, "windows", pool.report)
    pool.report(f"{what}  {counted(windows, 'window')}  parts: {len(tasks)}")
    results: dict[str, Result] = {}
    for task, result, kept in store.run(
        tasks,
        make_worker,
        folder=folder,
        workers=pool.workers,
        threads=pool.threads,
        gpus=pool.gpus,
        report=pool.report,
    ):
        if isinstance(result, Failed):
            raise OSError(
                f"{store.folder.locate(task.key)}: {result.why}; lower threads or batch if "
                "memory ran out, and run it again: it goes on where it was"
            )
        results[task.key] = parse(result)
        progress.add(task.item.windows, kept=kept)
    return [results[task.key] for task in tasks]
