"""``primus-scale bench``: speed, measured where it will be used; each subject is a module."""

from __future__ import annotations

import argparse
from typing import Any


def add_commands(commands: Any) -> None:
    """Add ``bench`` and its subcommands to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "bench",
        help="measure speed",
        description="Measure speed on this machine.",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    step = subjects.add_parser(
        "step",
        help="the whole training step against the encoder alone",
        description="Windows/s of the whole training step (reading packed shards, views, neighbour "
        "search in a full support set of 8192, losses, optimiser) and of the encoder's forward and "
        "backward alone on resident data, both on two views a window, in alternating rounds. On a "
        "CPU, per second of process CPU time.",
    )
    step.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="batch sizes")
    step.add_argument("--threads", type=int, default=1, help="CPU threads")
    step.add_argument("--rounds", type=int, default=5, help="rounds of each of the two")
    step.add_argument("--steps", type=int, default=3, help="steps in a round")
    step.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the run")
    step.add_argument("--encoder", default="stacked_rnn", help="encoder.name of the run")
    step.add_argument("--json", metavar="FILE", help="also write the figures there")
    step.set_defaults(run=_bench_step)
    _add_ingest(subjects)
    _add_support(subjects)


def _bench_step(args: argparse.Namespace) -> int:
    from benchmarks.step import bench_step

    return bench_step(args)


def _add_ingest(subjects: Any) -> None:
    ingest = subjects.add_parser(
        "ingest",
        help="raw recordings to windows, IMU only",
        description="Windows/s of one core, how much faster than real time that is (seconds of "
        "each device over seconds of CPU time), and the shares of reading and decoding, signal "
        "path, cutting and writing.",
    )
    ingest.add_argument(
        "recording", nargs="+", metavar="READER=URL", help="such as gopro=ride.mp4 aria=walk.vrs"
    )
    ingest.add_argument("--window-s", type=float, default=5.0, metavar="N", help="of the windows")
    ingest.add_argument("--rounds", type=int, default=5, help="rounds over all recordings")
    ingest.add_argument("--json", metavar="FILE", help="also write the figures there")
    ingest.set_defaults(run=_bench_ingest)


def _bench_ingest(args: argparse.Namespace) -> int:
    from benchmarks.ingest import bench_ingest

    return bench_ingest(args)


def _add_support(subjects: Any) -> None:
    support = subjects.add_parser(
        "support",
        help="the support service beside the training step",
        description="Milliseconds of a lookup and of an insert of a batch, the step beside it, and "
        "the shares of lookups, with and without asking one step ahead, and of inserts in it; "
        "for several sizes of the support set and numbers of ranks.",
    )
    support.add_argument(
        "--entries", type=int, nargs="+", default=[8192, 65536, 1048576], help="sizes of the set"
    )
    support.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="of the training")
    support.add_argument("--actors", type=int, default=2, help="that hold the set")
    support.add_argument("--batch", type=int, default=256, help="windows a step, over all ranks")
    support.add_argument("--threads", type=int, default=1, help="CPU threads of ranks and actors")
    support.add_argument("--index", default="ivf", help="support.index of sets above 100,000")
    support.add_argument("--gpus-per-actor", type=float, default=0.0, help="share of a GPU")
    support.add_argument("--gpus-per-worker", type=float, default=0.0, help="share of a GPU")
    support.add_argument("--rounds", type=int, default=5, help="rounds of each kind of step")
    support.add_argument("--steps", type=int, default=4, help="steps in a round")
    support.add_argument("--json", metavar="FILE", help="also write the figures there")
    support.add_argument("--figure", metavar="FILE", help="draw cost against size there (.svg)")
    support.set_defaults(run=_bench_support)


def _bench_support(args: argparse.Namespace) -> int:
    from benchmarks.support import bench_support

    return bench_support(args)
