"""How fast batches are read in mixed order and in the order of sessions, from the same shards.

    python -m benchmarks.reading --batch 384 --json FILE

Both read a whole epoch a round, in turns, so that a machine whose speed drifts slows both alike.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import write_random_shards
from primus_scale.command_parser import Parser
from primus_scale.config import DataConfig
from primus_scale.data.reader import batches
from primus_scale.data.shard_set import ShardSet

SESSIONS = 8  # in a batch
MIXED, BY_SESSIONS = "mixed", "sessions"


class Speed(NamedTuple):
    """Windows per second of process CPU time, and per second of wall time."""

    cpu: float
    wall: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure_all)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.reading",
        description="Windows/s of reading random packed shards, in mixed order and in batches of 8 "
        "sessions: schedule, ranged reads, decoding, batches; no training.",
    )
    parser.add_argument("--batch", type=int, default=384, help="windows in a batch")
    parser.add_argument("--blocks", type=int, default=64, help="records of 256 windows")
    parser.add_argument("--rounds", type=int, default=9, help="epochs in either order")
    parser.add_argument("--threads", type=int, default=1, help="threads that read")
    parser.add_argument("--url", help="where to write the shards (default: a temporary folder)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure_all(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        url = args.url or f"{folder}/shards"
        write_random_shards(url, args.blocks)
        orders = {
            MIXED: _config(url, args, None),
            BY_SESSIONS: _config(url, args, args.batch // SESSIONS),
        }
        speeds = _measure(orders, args.batch, args.rounds)
    print(f"{'order':>10} {'windows / CPU second':>21} {'windows / second':>17}   medians")
    for order, of_rounds in speeds.items():
        cpu, wall = (statistics.median(column) for column in zip(*of_rounds, strict=True))
        print(f"{order:>10} {cpu:>21.0f} {wall:>17.0f}")
    pairs = [*zip(speeds[BY_SESSIONS], speeds[MIXED], strict=True)]
    ratio = Speed(*(statistics.median(s[i] / m[i] for s, m in pairs) for i in range(2)))
    print(f"sessions / mixed: {ratio.cpu:.3f} by CPU time, {ratio.wall:.3f} by wall time")
    settings = {"batch": args.batch, "blocks": args.blocks, "rounds": args.rounds}
    figures = {order: [each._asdict() for each in rows] for order, rows in speeds.items()}
    write_figures(args.json, 1, {**settings, "speeds": figures, "ratio": ratio._asdict()})
    return 0


def _config(url: str, args: argparse.Namespace, session_windows: int | None) -> DataConfig:
    return DataConfig(
        train=(url,),
        session_windows=session_windows,
        shuffle_blocks=16,
        reader_threads=args.threads,
    )


def _measure(orders: Mapping[str, DataConfig], batch: int, rounds: int) -> dict[str, list[Speed]]:
    """Speeds of each round and order; the first round, which finds nothing cached, is left out."""
    speeds: dict[str, list[Speed]] = {order: [] for order in orders}
    for number in range(rounds + 1):
        for order, config in orders.items():
            speed = _read_epoch(config, batch, number)
            if number:
                speeds[order].append(speed)
    return speeds


def _read_epoch(config: DataConfig, batch: int, number: int) -> Speed:
    shard_set = ShardSet.open(config.train)
    steps = shard_set.windows // batch
    window = slice(number * steps, (number + 1) * steps)
    cpu, wall = time.process_time(), time.perf_counter()
    with batches(
        config,
        shard_set,
        batch=batch,
        seed=0,
        start_step=window.start,
        stop_step=window.stop,
    ) as loader:
        windows = sum(len(each.uid) for each in loader)
    return Speed(windows / (time.process_time() - cpu), windows / (time.perf_counter() - wall))


if __name__ == "__main__":
    sys.exit(main())
