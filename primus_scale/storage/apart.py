"""Check that a command writes to a folder of its own, outside what it reads.

check_apart("tasks/mine", ["shards/mine"])
check_apart("shards/mine/tasks", ["shards/mine"])     # ValueError: it lies in its own source
check_apart("shards/../shards/mine", ["shards/mine"])  # ValueError: it is its own source

An output that is the source would replace it, and one below it may be read as source next time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path

import fsspec

from primus_scale.storage.folder import is_local
from primus_scale.storage.urls import parse_place


def check_apart(out_url: str, source_urls: Iterable[str], *, inside: bool = False) -> None:
    """ValueError where ``out_url`` is one of the folders at ``source_urls``, or lies in one.

    inside: it may lie in one, where the command knows its own output from its source.
    """
    out = _full_path(out_url)
    for url in source_urls:
        source = _full_path(url)
        if out == source:
            raise ValueError(
                f"{out_url} is both source and output, and the source would be overwritten; name "
                "another output folder"
            )
        below = out[0] == source[0] and out[1].startswith(source[1].rstrip("/") + "/")
        if below and not inside:
            raise ValueError(
                f"{out_url} lies in {url}, which is the source; name an output folder outside it"
            )


def _full_path(url: str) -> tuple[str, str]:
    """The storage that a URL is of, and the path there, equal for all spellings of a place."""
    file_system, root = fsspec.core.url_to_fs(parse_place(url))
    if is_local(file_system):
        return "", str(Path(root or "/").resolve())
    return type(file_system).__name__, posixpath.normpath(str(root))
