"""``primus-scale shards build NAME``: the built-in data, or raw recordings by a reader's name."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from primus_scale.cli import GOES_ON
from primus_scale.stopping import loading
from shards.gate_flags import add_gate_flags, default_of
from shards.ingest.summary import summary
from shards.readers import READERS, create_reader, reader_option
from shards.settings import SESSION_BY, IngestSettings


def add_build(steps: Any) -> None:
    """Add ``build`` and the names of what it builds to the ``shards`` parser's ``steps``."""
    parser = steps.add_parser(
        "build",
        help="write the window shards of a data set",
        description="Write window shards of the built-in data (demo) or of raw recordings. "
        "primus-scale shards build NAME --help has the options of each.",
    )
    names = parser.add_subparsers(
        dest="data", required=True, metavar="NAME", help="which data set, or kind of recording"
    )
    _add_demo(names)
    for name, what in READERS.items():
        _add_reader(names, name, what)


def _add_demo(names: Any) -> None:
    parser = names.add_parser(
        "demo",
        help="the built-in data: synthetic triplets, and real IMU of 30 people",
        description="Write the built-in data, made from installed packages: synthetic triplets of "
        "IMU, pictures and narrations from motion capture, and real IMU of 30 people (UCI HAPT). "
        "It writes windows/train, windows/validation, few_shot/label and few_shot/test below "
        "--out.",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument(
        "--split", type=int, default=0, help="which of the 30 people are for the few-shot test"
    )
    parser.add_argument(
        "--test-people",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of people to test on, in place of those that --split draws",
    )
    parser.add_argument(
        "--moments", type=int, default=1200, help="synthetic training moments of 5 s"
    )
    parser.add_argument(
        "--placements", type=int, default=2, help="places on the body that record each moment"
    )
    parser.add_argument("--frames", type=int, default=2, help="pictures of each moment")
    _add_output(parser, "processes that render")
    parser.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    with loading():
        from shards.demo.build import build_demo

    build_demo(
        args.out,
        seed=args.seed,
        split=args.split,
        test_people=args.test_people,
        moments=args.moments,
        placements=args.placements,
        frames=args.frames,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    return 0


def _add_reader(names: Any, name: str, what: str) -> None:
    parser = names.add_parser(
        name,
        help=what,
        description=f"{what}. Recordings become windows on one signal path; a report of what was "
        "found and refused lies next to them (ingest.json; see primus-scale shards stats). A run "
        "that was stopped goes on where it was. Workers are those of the Ray cluster at "
        "RAY_ADDRESS, or of a local one; small local data need none, unless --workers is given.",
    )
    parser.add_argument("--src", required=True, metavar="URL", help="folder, or a single file")
    _add_output(parser, "recordings read at once")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the reader; may be given several times",
    )
    settings = parser.add_argument_group("windows")
    for flag, kind, text in (
        ("--rate-hz", float, "samples a second (default: the reader's, of an IMU 50)"),
        ("--window-s", float, "length (default: the reader's, of an IMU 5)"),
        ("--hop-s", float, "from one to the next where nothing is narrated (default: the length)"),
        ("--max-overlap", float, "share that two windows may have in common"),
        ("--frames", int, "pictures a window; 0 leaves video out"),
        ("--short-side", int, "pixels of a picture's shorter side"),
        ("--max-lag-s", float, "lag between picture and IMU beyond which a recording is flagged"),
        ("--shard-bytes", int, "size of a shard"),
    ):
        default = default_of(flag)
        help_text = f"{text} (default: {default})" if default is not None else text
        settings.add_argument(flag, type=kind, metavar="N", help=help_text)
    settings.add_argument(
        "--require",
        nargs="*",
        choices=["video", "text"],
        help="refuse windows without; no value: keep all (default: what the data set is made for)",
    )
    settings.add_argument(
        "--correct-lag",
        action="store_true",
        default=None,
        help="shift pictures and narrations of flagged recordings by the measured lag",
    )
    settings.add_argument(
        "--session-by",
        choices=SESSION_BY,
        help="what a session is: one wearing of a device, of several activities. auto: what the "
        "data set tells, else the recording; person: all recordings of a person, for recordings of "
        "one activity each (default: auto)",
    )
    add_gate_flags(parser)
    parser.set_defaults(run=_ingest, interrupted=GOES_ON)


def _ingest(args: argparse.Namespace) -> int:
    with loading():
        from shards.ingest.ingest import ingest
        from shards.ingest.recording_maker import IngestJob

    options = dict(reader_option(text) for text in args.option)
    job = IngestJob(args.data, args.src, args.out, _settings(args, options), options)
    found = ingest(job, workers=args.workers, overwrite=args.overwrite)
    for line in summary(found):
        print(line)
    print(f"data card  primus-scale shards stats {args.out}")
    return 0


def _settings(args: argparse.Namespace, options: dict[str, str]) -> IngestSettings:
    """The user's settings, then those of the reader's schema, then the defaults."""
    reader = create_reader(args.data, args.src, options)
    given: dict[str, Any] = {"require": sorted(reader.requires)}
    for name in (one.name for one in fields(IngestSettings)):
        if (value := getattr(args, name, None)) is not None:
            given[name] = value
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return IngestSettings.of(reader.schema(), **{**given, **lists})


def _add_output(parser: argparse.ArgumentParser, workers: str) -> None:
    parser.add_argument("--out", required=True, metavar="URL", help="folder to write to")
    parser.add_argument("--workers", type=int, metavar="N", help=f"{workers} (default: one a core)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shards that already lie in the folder"
    )
