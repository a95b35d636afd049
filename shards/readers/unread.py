"""Files of a source that belong to no recording, so that misnamed ones are reported.

for line in describe_unread(files, used, others=("*_quest.csv",)): ...
    # "Protocol: subjct107.dat and 2 more, not part of any recording"
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

_MOST_NAMED = 3  # files of a folder
# Files that people keep next to data, and shards made of them.
_NO_DATA = re.compile(
    r"\..*|__macosx|thumbs\.db|desktop\.ini|readme.*|licen[sc]e.*|citation.*|"
    r".*\.(ya?ml|md|pdf|docx?|rtf|bib|py|ipynb|html?)|"
    r"(index|ingest|card)\.json|shard-\d+\.tar|run\.lock",
    re.I,
)
_ARCHIVE = re.compile(r"(.+?)\.(zip|tar|tgz|tar\.(gz|bz2|xz)|7z|rar)", re.I)


def may_be_data(path: str) -> bool:
    """Whether a user may expect that the file is read."""
    return not any(_NO_DATA.fullmatch(part) for part in path.split("/"))


def describe_unread(
    files: Iterable[str], used: Collection[str], others: Sequence[str], reason: str
) -> Iterator[str]:
    """A line for each folder on the files that belong to no recording.

    used: files of recordings. others: patterns of files that the data set has but that are not
    needed; they are not listed. A pattern matches the end of a path, from the beginning of a
    folder's or file's name; ``*`` matches folders as well; case does not matter. An archive is not
    listed if files of a folder with its name, next to it, are used. reason: the end of each line.
    """
    patterns = [fnmatch.translate(f"*/{pattern}") for pattern in others]
    is_other = re.compile("|".join(patterns) or r"(?!)", re.I).match
    unpacked = {folder for path in used for folder in folders_around(path)}
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(files):
        if path in used or not may_be_data(path) or is_other(f"/{path}"):
            continue
        archive = _ARCHIVE.fullmatch(path)
        if archive is None or archive[1] not in unpacked:
            folders[posixpath.dirname(path)].append(posixpath.basename(path))
    for folder, names in sorted(folders.items()):
        more = len(names) - _MOST_NAMED
        yield (
            f"{folder or '.'}: {', '.join(names[:_MOST_NAMED])}"
            f"{f' and {more} more' if more > 0 else ''}, {reason}"
        )


def folders_around(path: str) -> Iterator[str]:
    """The folders around a file, from the innermost to the outermost."""
    while path := posixpath.dirname(path):
        yield path
