"""Patterns of names: which folders or files are recordings, and what their names state.

    pattern = NamePattern("study", "{person}_*")
    pattern.of_folder("study/p01_monday")                     # person p01, recording p01_monday
    pattern.of_file("study/p01_monday_acc.csv", "{recording}_acc.csv")         # the same recording

A wildcard stands for characters of one name. From left to right, each takes as few as possible: up
to the first occurrence of the text that follows it. So the time of matching is proportional to the
length of the name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from primus_scale.storage.names import check_name, quoted

RECORDING = "{recording}"
PERSON = "{person}"
PLACEMENT = "{placement}"
LABEL = "{label}"
SESSION = "{session}"
NAME_FIELDS = (PERSON, SESSION, PLACEMENT, LABEL)  # wildcards whose text is used
_MOST_WILDCARDS = 8
_WILDCARD = re.compile("(" + "|".join(map(re.escape, ("*", *NAME_FIELDS))) + ")")
_ADJACENT = re.compile(rf"({_WILDCARD.pattern})({_WILDCARD.pattern})")


class Named(NamedTuple):
    """A recording found by its name. path: of its folder, or what its files' paths begin with.

    fields: "person", "session", "placement" and "label" of the name, where the pattern has them.
    """

    path: str
    fields: dict[str, str]


class NamePattern:
    """``recordings`` of a description in the folder ``top``."""

    def __init__(self, top: str, pattern: str) -> None:
        self.top = top
        self.pattern = pattern
        self._depth = posixpath.join(top, pattern).count("/")

    def of_folder(self, path: str) -> Named | None:
        """The recording in the folder ``path``; None where the pattern does not fit."""
        match = _compiled(self.top, self.pattern, None).fullmatch(path)
        return None if match is None else Named(path, _fields_of(match))

    def of_file(self, path: str, file: str) -> Named | None:
        """The recording of the file ``path``; None where the name ``file`` does not fit it."""
        match = _compiled(self.top, self.pattern, file).fullmatch(path)
        if match is None:
            return None
        around = path.split("/")[: self._depth]
        return Named("/".join([*around, match["recording"]]), _fields_of(match))

    def recording_of(self, path: str, files: Iterable[str]) -> Named | None:
        """As ``of_file``, with the name in ``files`` of which most of the path is fixed text."""
        found = [named for file in files if (named := self.of_file(path, file))]
        return min(found, key=lambda named: len(named.path), default=None)


def check_pattern(pattern: str) -> str:
    """The pattern, if it is a valid one; ValueError with the next step otherwise."""
    names = _WILDCARD.sub("", pattern)
    twice = any(pattern.count(field) > 1 for field in NAME_FIELDS)
    many = pattern.count("*") > _MOST_WILDCARDS
    if twice or many or "**" in pattern or set(names) & set("{}[]?\\"):
        raise ValueError(
            f"{quoted(pattern)} may hold names, * and one {', '.join(NAME_FIELDS[:-1])} and "
            f"{NAME_FIELDS[-1]}, such as {PERSON}/*"
        )
    if adjacent := _ADJACENT.search(pattern):
        raise ValueError(
            f"{quoted(pattern)} does not say where {adjacent[1]} ends and {adjacent[3]} begins; "
            "write what stands between them, such as _"
        )
    return check_name(pattern.removeprefix("./").rstrip("/"), "recordings")


def check_file_name(file: str) -> str:
    """The name of a file in a description; ValueError for wildcards of ``recordings`` only."""
    if field := next((field for field in NAME_FIELDS if field in file), None):
        raise ValueError(
            f"{quoted(file)}: write {RECORDING} for the part of the name that differs, and "
            f"{field} in recordings"
        )
    return file


def _fields_of(match: re.Match[str]) -> dict[str, str]:
    return {name: text for name, text in match.groupdict().items() if name != "recording"}


@cache
def _compiled(top: str, pattern: str, file: str | None) -> re.Pattern[str]:
    """Matches folders that fit the pattern, or, with ``file``, files of such recordings."""
    start = re.escape(posixpath.join(top, ""))
    *around, last = [_of_name(name) for name in pattern.split("/")]
    if file is None:
        return re.compile(start + "/".join([*around, last]))
    before, *others = [re.escape(part) for part in file.split(RECORDING)]
    name = f"{before}(?P<recording>{last}){'(?P=recording)'.join(others)}"
    return re.compile(start + "/".join([*around, name]))


def _of_name(name: str) -> str:
    """A regular expression for one name. Wildcards before the last one do not backtrack."""
    texts = _WILDCARD.split(name)
    before, pairs = texts[0], list(zip(texts[1::2], texts[2::2], strict=True))
    parts = [_of_wildcard(wildcard) + re.escape(text) for wildcard, text in pairs]
    return re.escape(before) + "".join(f"(?>{part})" for part in parts[:-1]) + "".join(parts[-1:])


def _of_wildcard(wildcard: str) -> str:
    return "[^/]*?" if wildcard == "*" else f"(?P<{wildcard[1:-1]}>[^/]+?)"
