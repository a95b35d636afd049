"""Checks of what nodes share: the shards' index, reading from them, and the output folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from launch.checks.base import ALL, FAIL, OK, Check, CheckFinding, Context, format_bytes
from primus_scale.counted import counted
from primus_scale.data.shard_set import check_same_input
from primus_scale.storage.files import check_writable, explain_failed_write
from primus_scale.storage.folder import Folder
from primus_scale.train.run import check_embeddings

ONE_BY_ONE = 8  # reads that are timed one at a time
SPEED_READS = 256  # records at most, to measure speed
SPEED_S = 2.0  # no read begins later
SHARED_S = 5.0  # until a file of another node must be seen; network file systems cache listings


def measure_index(context: Context) -> dict[str, Any]:
    """Open all shards as the run does; their sizes, and the digest of their indexes."""
    config = context.config
    data = context.data
    check_embeddings(config, data)
    sets = [data]
    if context.held_out is not None:
        sets.append(context.held_out)
        check_same_input(*sets)
    trees = [asdict(index) for each in sets for index in each.indexes]
    shards = [shard for each in sets for index in each.indexes for shard in index.shards]
    return {
        "digest": hashlib.sha256(json.dumps(trees, sort_keys=True).encode()).hexdigest()[:12],
        "windows": sum(each.windows for each in sets),
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
    }


def judge_index(context: Context, ranks: list[dict[str, Any]]) -> list[CheckFinding]:
    """All ranks must read the same."""
    first = ranks[0]
    other = {
        rank: f"digest of the indexes is {each['digest']}, on {context.nodes[0]} "
        f"{first['digest']}; let data.train name the same folders on every node"
        for rank, each in enumerate(ranks)
        if each["digest"] != first["digest"]
    }
    if other:
        return context.findings("index", FAIL, other)
    detail = (
        f"{counted(first['windows'], 'window')} in {counted(first['shards'], 'shard')}, "
        f"{format_bytes(first['bytes'])}, digest {first['digest']}"
    )
    return [CheckFinding("index", ALL, OK, detail)]


def measure_reads(context: Context) -> dict[str, float]:
    """Latency of a record's ranged read in seconds, and bytes/s with the run's reader threads.

    Every rank reads other records, at the same time, each checked against the index.
    """
    data = context.data
    order = np.random.default_rng(context.runtime.rank).permutation(len(data))
    own = order[: SPEED_READS + ONE_BY_ONE].tolist()
    alone = own[: max(1, min(ONE_BY_ONE, len(own) // 2))]
    latencies = []
    for record in alone:
        start = time.perf_counter()
        data.read_record(record)
        latencies.append(time.perf_counter() - start)

    start = time.perf_counter()

    def read(record: int) -> int:
        if time.perf_counter() - start > SPEED_S:
            return 0
        return sum(len(member) for member in data.read_record(record).values())

    with ThreadPoolExecutor(context.config.data.reader_threads) as pool:
        size = sum(pool.map(read, own[len(alone) :] or own))
    return {"latency_s": median(latencies), "bytes_s": size / (time.perf_counter() - start)}


def judge_reads(context: Context, ranks: list[dict[str, float]]) -> list[CheckFinding]:
    """The speed of each node. No speed is too low for every run, so none fails."""
    size = sum(shard.size for index in context.data.indexes for shard in index.shards)
    bytes_a_window = size / sum(index.windows for index in context.data.indexes)
    findings = []
    for node, there in context.ranks_by_node().items():
        latency = max(ranks[rank]["latency_s"] for rank in there)
        speed = sum(ranks[rank]["bytes_s"] for rank in there)
        detail = (
            f"{format_bytes(speed)}/s = {speed / bytes_a_window:,.0f} windows/s by {len(there)} "
            f"ranks, {latency * 1e3:.3g} ms a record"
        )
        findings.append(CheckFinding("shards", node, OK, detail))
    return findings


def measure_output(context: Context) -> None:
    """Leave a file of this rank in the output, and at ``train.storage`` where that is set.

    There another is put and removed again, as a run does with its older checkpoints.
    """
    check_writable(context.scratch.parent)
    mark = context.scratch / _mark(context.runtime.rank)
    with explain_failed_write(context.scratch):
        context.scratch.mkdir(exist_ok=True)
        mark.touch()
    if context.config.train.storage:
        _write_to_storage(context, mark)


def _write_to_storage(context: Context, mark: Path) -> None:
    folder, passing = context.shared, f"{mark.name}.removed"
    doing = "write to"
    try:
        folder.create()
        folder.put(mark, mark.name)
        folder.put(mark, passing)
        doing = "remove from"
        folder.remove(passing)
    except OSError as error:
        raise OSError(
            f"cannot {doing} train.storage={context.config.train.storage} ({error}); let its "
            "credentials write and remove there, or name other storage"
        ) from error


def judge_output(context: Context, ranks: list[None]) -> list[CheckFinding]:
    """Nothing was raised: every rank can write."""
    free = shutil.disk_usage(context.scratch).free
    detail = f"writable, {format_bytes(free)} free"
    if context.config.train.storage:
        detail += f"; {context.config.train.storage} as well"
    return [CheckFinding("output", ALL, OK, detail)]


def measure_shared(context: Context) -> list[int]:
    """Ranks whose files this one cannot see, though they are written."""
    end = time.monotonic() + SHARED_S
    missing = [
        rank for rank in range(context.runtime.world) if not _is_visible(context.shared, rank)
    ]
    while missing and time.monotonic() < end:
        time.sleep(0.1)
        missing = [rank for rank in missing if not _is_visible(context.shared, rank)]
    return missing


def judge_shared(context: Context, ranks: list[list[int]]) -> list[CheckFinding]:
    """All ranks must see one folder: checkpoints are written by all of them together."""
    where = context.config.train.storage or context.config.output
    apart = {
        rank: f"{where} is not one folder for all: files of "
        f"{', '.join(context.places(missing))} do not show; let output name storage that all "
        "nodes share, or set train.storage"
        for rank, missing in enumerate(ranks)
        if missing
    }
    if apart:
        return context.findings("shared", FAIL, apart)
    return [CheckFinding("shared", ALL, OK, f"all ranks see one {where}")]


@contextmanager
def files_removed(context: Context) -> Iterator[None]:
    """Remove, after the block, the files of checks in the output and at ``train.storage``."""
    with removed_afterwards(context.scratch):
        try:
            yield
        finally:
            if context.config.train.storage and context.runtime.rank == 0:
                with suppress(OSError):  # a check has reported it
                    context.shared.remove_all()


@contextmanager
def removed_afterwards(folder: Path) -> Iterator[Path]:
    """Remove ``folder`` after the block, and the folders above it that were not there before."""
    absent = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in absent:
            with suppress(OSError):  # never made, or not empty
                parent.rmdir()


def _mark(rank: int) -> str:
    return f"rank{rank}"


def _is_visible(folder: Folder, rank: int) -> bool:
    try:
        folder.size(_mark(rank))
    except FileNotFoundError:
        return False
    return True


CHECKS = (
    Check("index", measure_index, judge_index),
    Check("shards", measure_reads, judge_reads, needs=("index",)),
    Check("output", measure_output, judge_output),
    Check("shared", measure_shared, judge_shared, needs=("output",)),
)
