"""``primus-scale shards split``: shard folders to a folder for labels and one for the test."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.splits.words import SIDES, UNITS
from primus_scale.stopping import loading


def add_split(steps: Any) -> None:
    """Add ``split`` to the subcommands ``steps`` of ``primus-scale shards``."""
    parser = steps.add_parser(
        "split",
        help="divide shard folders by people into label/ and test/",
        description="Divide shard folders, window shards or packed ones, into OUT/label and "
        "OUT/test, the folders that primus-scale evaluate reads. All windows of a person are on "
        "one side. Who is tested is drawn by a seed, or named in a CSV file. Prints a table of "
        "people, windows and classes on each side, and writes OUT/split.csv, which --names takes.",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SRC", help="folder of shards; several are read as one"
    )
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--by",
        choices=UNITS,
        help="what is on one side as a whole (default: person, or what the file of --names names)",
    )
    sides = parser.add_mutually_exclusive_group(required=True)
    sides.add_argument(
        "--test", type=float, metavar="SHARE", help="share of people for the test, e.g. 0.3"
    )
    sides.add_argument(
        "--names",
        metavar="FILE.csv",
        help="CSV file with a column person (or another unit of --by) and a column side, one of "
        f"{', '.join(SIDES)}; a column dataset tells apart equal names of several data sets",
    )
    parser.add_argument("--seed", type=int, default=0, help="of who is tested, with --test")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shards that already lie in the folders"
    )
    parser.set_defaults(
        run=_split, interrupted="label/ and test/ are not finished; the same command starts again"
    )


def _split(args: argparse.Namespace) -> int:
    with loading():
        from shards.split.split import split

    split(
        args.sources,
        args.out,
        by=args.by,
        test=args.test,
        names=args.names,
        seed=args.seed,
        overwrite=args.overwrite,
    )
    return 0
