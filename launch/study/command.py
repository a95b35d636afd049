"""``primus-scale study run | status``: many pretrainings with their evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from primus_scale.cli import GOES_ON
from primus_scale.command_parser import Parser, add_overrides
from primus_scale.stopping import loading


def add_commands(commands: Any) -> None:
    """Add ``study`` and its subcommands to the ``primus-scale`` parser's ``commands``."""
    commands.add_parser(
        "study",
        help="run a study: variants of a configuration, pretrained and evaluated with Ray Tune",
        description="A study is a YAML file of variants of a configuration, splits of people and "
        "seeds (configs/studies/). Each variant is pretrained on each split with each seed, and "
        "evaluated with few labels. More in docs/studies.md.",
        fill=_fill_study,
    )


def _fill_study(parser: Parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_run(steps)
    _add_status(steps)


def _add_run(steps: Any) -> None:
    from primus_scale.study.study_file import add_part

    parser = steps.add_parser(
        "run",
        help="do the trials of a study that are left, and write its tables",
        description="Write the plan (plan.csv), build the data where the study names none, do the "
        "trials that have no results yet, several at a time, and write tables and a page. A trial "
        "that fails does not stop the others. The same command goes on after any end: finished "
        "trials are not run again, a running one continues from its checkpoint, and one that "
        "failed is tried again. Exit code 1 where trials failed.",
    )
    parser.add_argument("study", metavar="FILE", help="YAML file of the study")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of data and results")
    add_part(parser)
    parser.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="trials at a time (default: as many as the cluster has cores and devices for)",
    )
    add_overrides(parser)
    parser.set_defaults(run=_run, interrupted=GOES_ON)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _run(args: argparse.Namespace) -> int:
    with loading():
        from launch.study.run import run_study
        from primus_scale.storage.urls import parse_local
        from primus_scale.study.study_file import choose_part, read_study

    study = choose_part(read_study(Path(args.study)), args.variants, args.splits, args.seeds)
    return run_study(study, parse_local(args.out), args.jobs, args.overrides)


def _add_status(steps: Any) -> None:
    parser = steps.add_parser(
        "status",
        help="show how far a study is",
        description="Print a line for each trial of the plan: finished with its accuracy, running "
        "or stopped at a step, failed with its error, or waiting. Reads the study's folder only.",
    )
    parser.add_argument("out", metavar="DIR", help="folder of the study")
    parser.set_defaults(run=_status)


def _status(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.storage.urls import parse_local
        from primus_scale.study.status import format_status, read_status

    print(format_status(read_status(parse_local(args.out))))
    return 0
