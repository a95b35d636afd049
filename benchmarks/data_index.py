"""Folders of very many windows that take little room: how long they take to open, and their memory.

Each measurement is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.data_readers import BATCH, data_config
from benchmarks.synthetic import RATE_HZ, SAMPLES
from primus_scale.data.index import ShardEntry, ShardIndex, read_index, write_index
from primus_scale.data.reader import batches
from primus_scale.data.record_columns import Columns, RecordEntry
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import CHANNELS, UNITS

SHARD_RECORDS = 8192  # of window shards of 64 MiB


def write_copies(url: str, folder: Path, windows: int) -> str:
    """A folder of about ``windows`` windows: the shards at ``url`` again and again, as hard links.

    Their checksums in the index are made up, since an index names no shard twice.
    """
    index = read_index(url)
    folder.mkdir()
    shards: list[ShardEntry] = []
    for number in range(-(-windows // index.windows)):
        for shard in index.shards:
            name = f"copy-{number:06d}-{shard.name}"
            os.link(Path(url, shard.name), folder / name)
            digest = hashlib.sha256(name.encode()).hexdigest()
            shards.append(replace(shard, name=name, sha256=digest))
    write_index(replace(index, shards=tuple(shards)), str(folder))
    return str(folder)


def write_made_up(folder: Path, windows: int) -> str:
    """Window shards of ``windows`` windows, one a record, whose tars are sparse files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shards: list[ShardEntry] = []
    for first in range(0, windows, SHARD_RECORDS):
        count = min(SHARD_RECORDS, windows - first)
        length = rng.integers(14, 18, count) * 512  # of samples of 6 kB, with metas and headers
        ends = np.cumsum(length)
        columns = [ends - length, length, np.ones(count), rng.integers(0, 2**32, count)]
        records = Columns(RecordEntry, [column.astype(np.uint32) for column in columns])
        name, size = f"shard-{len(shards):06d}.tar", int(ends[-1]) + 1024
        with (folder / name).open("wb") as file:
            file.truncate(size)
        digest = hashlib.sha256(name.encode()).hexdigest()
        shards.append(ShardEntry(name, size, digest, records))
    index = ShardIndex(
        kind="window",
        channels=CHANNELS,
        units=UNITS,
        rate_hz=RATE_HZ,
        window_samples=SAMPLES,
        mean=(0.0,) * len(CHANNELS),
        std=(1.0,) * len(CHANNELS),
        shards=tuple(shards),
    )
    write_index(index, str(folder))
    return str(folder)


def measure(what: str, url: str) -> dict[str, float]:
    """The figures of ``what`` (a name in ``POINTS``) in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data", "--point", what, "--url", url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def open_folder(url: str) -> dict[str, float]:
    """Seconds to open a folder, and its memory."""
    return _opened(url, sizes=True)


def open_without_sizes(url: str) -> dict[str, float]:
    """The same on a rank other than 0, which does not look at the shards."""
    return _opened(url, sizes=False)


def _opened(url: str, *, sizes: bool) -> dict[str, float]:
    before = _now_mb()
    clocks = _Clocks()
    shard_set = ShardSet.open(url, sizes=sizes)
    figures = clocks.seconds("")
    return {"windows": shard_set.windows, **figures, "mb": _now_mb() - before, **_peak(before)}


def first_batch(url: str) -> dict[str, float]:
    """Seconds to open a folder and to have the first batch of a run."""
    return _batch_at(url, 0.0)


def resume(url: str) -> dict[str, float]:
    """Seconds to open a folder and to have the batch in the middle of an epoch."""
    return _batch_at(url, 0.5)


def whole_epoch(url: str) -> dict[str, float]:
    """Memory in the course of an epoch: after a tenth of it, and at its end."""
    shard_set = ShardSet.open(url)
    steps = shard_set.windows // BATCH
    with batches(data_config(url), shard_set, batch=BATCH, seed=0, stop_step=steps) as loader:
        for _ in range(steps // 10):
            next(loader)
        early = _now_mb()
        for _ in loader:
            pass
        return {"windows": shard_set.windows, "mb_at_a_tenth": early, "mb_at_the_end": _now_mb()}


POINTS = {
    "open": open_folder,
    "open as another rank": open_without_sizes,
    "first": first_batch,
    "resume": resume,
    "epoch": whole_epoch,
}


def _batch_at(url: str, share: float) -> dict[str, float]:
    before = _now_mb()
    opening = _Clocks()
    shard_set = ShardSet.open(url)
    figures = opening.seconds("open_")
    step = int(share * (shard_set.windows // BATCH))
    reading = _Clocks()
    with batches(data_config(url), shard_set, batch=BATCH, seed=0, start_step=step) as loader:
        next(loader)
        figures |= reading.seconds("batch_")
    return {"windows": shard_set.windows, **figures, **_peak(before)}


class _Clocks:
    """CPU time of the process and time on the clock, from now on."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def seconds(self, prefix: str) -> dict[str, float]:
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return {f"{prefix}cpu_s": cpu, f"{prefix}wall_s": wall}


def _now_mb() -> float:
    """Memory of the process."""
    return _status("VmRSS")


def _peak(before: float) -> dict[str, float]:
    peak = _status("VmHWM")  # not that of the parent, which ``getrusage`` may tell
    return {"peak_mb": peak, "peak_mb_above_imports": peak - before}


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) / 1024
