"""``primus-scale bench``: speed, measured where it will be used; each subject is a module."""

from __future__ import annotations

import argparse
from typing import Any


def add_commands(commands: Any) -> None:
    """Add ``bench`` and its subcommands to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "bench",
        help="measure speed",
        description="Measure speed on this machine, on data made for it.",
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


def _bench_step(args: argparse.Namespace) -> int:
    from launch.bench_step import bench_step

    return bench_step(args)
