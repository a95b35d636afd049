"""``primus-scale shards init folder --src DIR``: drafts the description of own files."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.stopping import loading
from primus_scale.storage.folder import Folder, explain_write_errors


def add_init(steps: Any) -> None:
    """Add ``init`` to the ``shards`` parser's ``steps``."""
    parser = steps.add_parser(
        "init",
        help="draft the description of your own files",
        description="Look at the tables below a folder and write a recording.yaml that describes "
        "them: how they are written, which columns are axes, times and labels, their units and "
        "rate as measured. Every guess is marked; correct them before you build.",
    )
    parser.add_argument("reader", choices=["folder"], help="the reader that needs a description")
    parser.add_argument("--src", required=True, metavar="URL", help="folder that holds your files")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a recording.yaml that is there already"
    )
    parser.set_defaults(run=_init)


def _init(args: argparse.Namespace) -> int:
    with loading():
        from shards.files.source import Source
        from shards.readers.draft import OPEN_RATE, Draft, draft
        from shards.readers.draft_windows import draft_windows
        from shards.readers.folder_listing import WINDOWS

    source = Source(args.src, inside=True)
    source.check()
    drafts = draft(source)
    for one in drafts:
        if source.exists(one.path) and not args.overwrite:
            raise FileExistsError(
                f"{source.locate(one.path)} is there already; correct it, or replace it with "
                "--overwrite"
            )
    windows = draft_windows(one.text for one in drafts)
    if windows and (args.overwrite or not source.exists(WINDOWS)):
        drafts.append(Draft(WINDOWS, windows))
    elif source.exists(WINDOWS):
        print(f"note   {source.locate(WINDOWS)} is kept; delete it if its channels are not wanted")
    for one in drafts:
        place = Folder(source.locate(one.path).rpartition("/")[0])
        with (
            explain_write_errors(place.url),
            place.staging(one.path.rpartition("/")[2]) as file,
        ):
            file.write_text(one.text, encoding="utf-8")
        guesses = one.text.count("# guess:")
        print(
            f"wrote  {source.locate(one.path)}, with {guesses} "
            f"guess{'es' if guesses != 1 else ''} to look at"
        )
        if (count := one.text.count(OPEN_RATE)) > 0:
            print(
                f"open   {source.locate(one.path)}: rate_hz of {count} sensor"
                f"{'s' if count != 1 else ''}; nothing states it, so write it before you build"
            )
    print(f"then   primus-scale shards build folder --src {args.src} --out URL")
    return 0
