"""How fast raw recordings become windows, and where the time goes.

    python -m benchmarks.ingest gopro=ride.mp4 aria=walk.vrs --json FILE

One core does what a worker of ``shards build`` does with a recording, without its video: reading
and decoding the samples, the signal path, cutting and judging windows, writing them. Times are CPU
time of the process, medians over rounds in which the recordings take turns.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import run_benchmark, write_figures
from primus_scale.command_parser import Parser
from primus_scale.data.record import encode_window
from primus_scale.sample import Window
from primus_scale.storage.folder import Folder
from shards.ingest.windows import RecordingWindows
from shards.readers import create_reader
from shards.recording import Device, Recording, Samples
from shards.settings import IngestSettings
from shards.write.shard_file import ShardRecord, window_key, write_shard

STAGES = ("decode", "resample", "cut", "write")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure_all)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.ingest",
        description="Windows/s of one core, how much faster than real time that is (seconds of "
        "each device over seconds of CPU time), and the shares of reading and decoding, signal "
        "path, cutting and writing.",
    )
    parser.add_argument(
        "recording", nargs="+", metavar="READER=URL", help="such as gopro=ride.mp4 aria=walk.vrs"
    )
    parser.add_argument("--window-s", type=float, default=5.0, metavar="N", help="of the windows")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all recordings")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure_all(args: argparse.Namespace) -> int:
    """Measure every recording, print the table and write the JSON file."""
    torch.set_num_threads(1)
    named = [_named(text) for text in args.recording]
    rounds = [[_measure(*each, args.window_s) for each in named] for _ in range(args.rounds)]
    rows = [_median(one) for one in zip(*rounds, strict=True)]
    print(
        f"{'recording':<28} {'minutes':>8} {'windows':>8} {'windows/s':>10} {'x real time':>12}  "
        + "  ".join(f"{stage:>8}" for stage in STAGES)
    )
    for row in rows:
        shares = "  ".join(f"{100 * row['share'][stage]:>6.0f} %" for stage in STAGES)
        print(
            f"{row['recording']:<28} {row['device_minutes']:>8.2f} {row['windows']:>8} "
            f"{row['windows_per_s']:>10.0f} {row['real_time_factor']:>12.0f}  {shares}"
        )
    settings = {"window_s": args.window_s, "rounds": args.rounds}
    write_figures(args.json, 1, {**settings, "rows": rows})
    return 0


def _named(text: str) -> tuple[str, str]:
    reader, equals, url = text.partition("=")
    if not equals:
        raise ValueError(f"{text}: write READER=URL, such as gopro=ride.mp4")
    return reader, url


class _Clock:
    """CPU time of the process, by what it is spent on; inner stages are taken off outer ones."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._stages: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block under ``name``."""
        self._turn()
        self._stages.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stages.pop()

    def each(self, name: str, items: Callable[[], Iterable[Any]]) -> Iterator[Any]:
        """The items; the time that making them takes is counted under ``name``."""
        iterator = iter(items())
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _turn(self) -> None:
        now = time.process_time()
        if self._stages:
            self.spent[self._stages[-1]] += now - self._since
        self._since = now


def _measure(reader_name: str, url: str, window_s: float) -> dict[str, Any]:
    """All recordings at ``url`` once."""
    reader = create_reader(reader_name, url)
    settings = IngestSettings.of(reader.schema(), window_s=window_s, frames=0)
    clock = _Clock()
    windows, seconds = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for ref in reader.recordings():
            with clock.stage("decode"), reader.open(ref) as recording:
                with clock.stage("resample"):
                    made = RecordingWindows(_timed(recording, clock), settings)
                with clock.stage("write"):
                    records = map(_record, clock.each("cut", made.__iter__))
                    write_shard(Folder(folder), "windows.tar", records)
            windows += made.report.windows
            seconds += sum(device.end_s - device.start_s for device in made.report.devices)
    total = sum(clock.spent.values())
    return {
        "recording": f"{reader_name} {Path(url).name}",
        "device_minutes": seconds / 60,
        "windows": windows,
        "cpu_s": total,
        "windows_per_s": windows / total,
        "real_time_factor": seconds / total,
        "share": {stage: clock.spent[stage] / total for stage in STAGES},
    }


def _timed(recording: Recording, clock: _Clock) -> Recording:
    """The recording without video, whose sensors' reading is counted as decoding."""

    def timed(device: Device) -> Device:
        return replace(
            device,
            sensors=tuple(
                replace(sensor, read=_reading(sensor.read, clock)) for sensor in device.sensors
            ),
        )

    return replace(recording, frames=None, devices=tuple(map(timed, recording.devices)))


def _reading(
    read: Callable[[], Iterable[Samples]], clock: _Clock
) -> Callable[[], Iterator[Samples]]:
    return lambda: clock.each("decode", read)


def _record(window: Window) -> ShardRecord:
    return ShardRecord(window_key(window.meta.uid), encode_window(window))


def _median(rounds: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The round with the median CPU time."""
    return sorted(rounds, key=lambda row: row["cpu_s"])[len(rounds) // 2]


if __name__ == "__main__":
    sys.exit(main())
