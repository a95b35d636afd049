"""``primus-scale report``."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.stopping import loading


def add_report(commands: Any) -> None:
    """Add ``report`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "report",
        help="write the report of a study or of evaluations anew, from their results",
        description="Rebuild page and Markdown from results that are there; nothing is run. "
        "A study's folder gets its tables and its page. Results of one task (few_shot.json of "
        "several splits or seeds) are pooled; those of several tasks are compared, with ranks "
        "where there are at least three.",
    )
    parser.add_argument(
        "places",
        nargs="+",
        metavar="DIR",
        help="folder of a study, of an evaluation or of a run, or few_shot.json files",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the report (default: in DIR)")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.storage.urls import parse_local
        from primus_scale.study.report import rebuild_report

    out = None if args.out is None else parse_local(args.out)
    rebuild_report([parse_local(place) for place in args.places], out)
    return 0
