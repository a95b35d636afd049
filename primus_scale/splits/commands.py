"""``primus-scale audit-split``, and the flag ``--may-share``."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.splits.words import KINDS
from primus_scale.stopping import loading


def add_audit_split(commands: Any) -> None:
    """Add ``audit-split`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "audit-split",
        help="what two sides of a split share: people, recordings, captures, days, samples",
        description="Compare two sides of a split, each a folder of shards or a CSV file with the "
        "columns person and recording, and possibly start, end, dataset, device, capture and day. "
        "Prints what they share, with counts and examples; exit code 1 where anything is shared. "
        "What the data do not tell is reported as not known.",
    )
    parser.add_argument("sides", nargs=2, metavar="URL", help="folder of shards, or a CSV file")
    parser.add_argument("--json", metavar="FILE", help="also write what was found as JSON")
    add_may_share(parser, "may be shared: it is reported, and is no reason for exit code 1")
    parser.set_defaults(run=_audit_split)


def add_may_share(parser: argparse.ArgumentParser, what: str) -> None:
    """``--may-share KIND``, any number of times; ``what`` continues a sentence of its help."""
    parser.add_argument(
        "--may-share",
        action="append",
        default=[],
        choices=KINDS,
        metavar="KIND",
        help=f"what {what}; one of {', '.join(KINDS)}; may be given several times",
    )


def _audit_split(args: argparse.Namespace) -> int:
    with loading():
        import json

        from primus_scale.splits.audit import audit, format_audit
        from primus_scale.splits.spans import read_spans
        from primus_scale.storage.files import write_atomically
        from primus_scale.storage.urls import parse_local

    found = audit(*(read_spans(side, report=print) for side in args.sides))
    print(format_audit(found))
    if args.json is not None:
        write_atomically(parse_local(args.json), json.dumps(found.as_dict(), indent=1) + "\n")
    return 1 if found.kinds(args.may_share) else 0
