"""How fast windows are read, against raw bytes and other libraries, and how soon a run has data.

    python -m benchmarks.data --json docs/figures/bench_data.json

All readers read the same windows, one after the other in every round, so that a machine whose speed
drifts slows all alike. Libraries that are not installed are left out, and the table says so.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.data_index import POINTS, measure, write_copies, write_made_up
from benchmarks.data_readers import READERS, RawBuffer, RawFiles, Reader, libraries
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import write_random_shards
from primus_scale.command_parser import Parser

TEACHER_DIMS = {"video": 512, "text": 512}  # with samples 8 kB a window
OPENING = ("open", "open as another rank")
RAW = (RawBuffer.name, RawFiles.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.data",
        description="Windows of 8 kB per second of CPU time, of packed shards, raw bytes, and the "
        "formats of other libraries; the first batch, and the first after resuming.",
    )
    parser.add_argument("--blocks", type=int, default=64, help="records of 256 windows")
    parser.add_argument("--rounds", type=int, default=9, help="in which all read, after one")
    parser.add_argument("--windows", type=int, default=1_000_000, help="of the folder to resume in")
    parser.add_argument(
        "--records", type=int, default=100_000_000, help="of window shards that are only opened"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--point", choices=list(POINTS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser


def _measure(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    if args.point:
        print(json.dumps(POINTS[args.point](args.url)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/packed"
        write_random_shards(url, args.blocks, TEACHER_DIMS)
        speeds = _speeds(url, Path(folder), args.rounds)
        _print_speeds(speeds)
        many = write_copies(url, Path(folder, "many"), args.windows)
        starts = {name: measure(name, many) for name in POINTS}
        made_up = write_made_up(Path(folder, "made-up"), args.records)
        opened = {f"{name}, window records": measure(name, made_up) for name in OPENING}
        starts |= opened
    for name, figures in starts.items():
        print(f"{name:>36} ", ", ".join(f"{key} {value:.6g}" for key, value in figures.items()))
    settings = {"blocks": args.blocks, "rounds": args.rounds, "libraries": libraries()}
    write_figures(args.json, 1, {**settings, "windows_per_cpu_s": speeds, "starts": starts})
    return 0


def _speeds(url: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Windows per CPU second of each reader and round; none where its library is missing."""
    speeds: dict[str, list[float]] = {each.name: [] for each in READERS}
    with ExitStack() as stack:
        readers = []
        for number, kind in enumerate(READERS):
            if not kind.missing():
                reader = kind(url, folder / f"reader-{number}")
                stack.callback(reader.close)
                reader.prepare()
                readers.append(reader)
        for number in range(rounds + 1):
            for reader in readers:
                speed = _speed(reader)
                if number:  # the first finds nothing cached
                    speeds[reader.name].append(speed)
    return speeds


def _speed(reader: Reader) -> float:
    start = time.process_time()
    windows = reader.read()
    return windows / (time.process_time() - start)


def _print_speeds(speeds: Mapping[str, Sequence[float]]) -> None:
    """A row for each reader: its median, the middle half of its rounds, and ratios by round."""
    shares = " ".join(f"{'of ' + name:>30}" for name in RAW)
    print(f"{'reader':>34} {'windows / CPU s':>16} {'quartiles':>19} {shares}")
    for name, rounds in speeds.items():
        if not rounds:
            print(f"{name:>34}    not installed")
            continue
        low, middle, high = quartiles(rounds)
        ratios = " ".join(f"{ratio(rounds, speeds[raw]):>30.3f}" for raw in RAW)
        print(f"{name:>34} {middle:>16,.0f} {f'{low:,.0f}-{high:,.0f}':>19} {ratios}")


def quartiles(rounds: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(rounds) == 1:
        return rounds[0], rounds[0], rounds[0]
    low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return low, middle, high


def ratio(rounds: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of two readers in the same round."""
    return statistics.median(a / b for a, b in zip(rounds, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
