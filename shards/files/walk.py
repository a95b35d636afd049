"""Files below a local folder by a pattern, links followed, and what was skipped.

found = walk(Path("rides"), "**/recording.yaml", inside=True)
found.files    # ["anna/recording.yaml", ...]
found.skipped  # {"ben": "is a link that leads out of rides, to /disk2/ben"}
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from fsspec.utils import glob_translate

MOST_FOLDERS = 64  # from the top down; loops of links are found before
_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")  # as glob.escape writes them


class WalkResult(NamedTuple):
    """files: relative paths, sorted. skipped: relative path of what was not read, and why."""

    files: list[str]
    skipped: dict[str, str]


class _FolderLevel(NamedTuple):
    """A folder on the way down: its path, that relative to the top, the real paths around it."""

    path: str
    inner: tuple[str, ...]
    around: tuple[str, ...]


def walk(root: Path, pattern: str, *, inside: bool = False) -> WalkResult:
    """Regular files below ``root`` that match a glob pattern, in which ``**`` goes down.

    Links to files and folders are followed; with ``inside`` only those that stay below ``root``.
    Skipped and named: links that lead nowhere, out of ``root`` or to a folder around them;
    folders that cannot be read; and, where they match, pipes, sockets and devices.
    """
    parts = pattern.split("/")
    literal = 0
    while literal < len(parts) - 1 and not _MAGIC.search(_ESCAPED.sub("", parts[literal])):
        literal += 1
    inner = tuple(_ESCAPED.sub(r"\1", part) for part in parts[:literal])
    walker = _Walker(root, parts, inside)
    path = root.joinpath(*inner)
    if path.is_dir() and (not inside or walker.is_inside(str(path))):
        walker.folder(_FolderLevel(str(path), inner, (os.path.realpath(path),)))
    return WalkResult(sorted(walker.files), walker.skipped)


class _Walker:
    """The state of one walk."""

    def __init__(self, root: Path, parts: list[str], inside: bool) -> None:
        self.files: list[str] = []
        self.skipped: dict[str, str] = {}
        self._root = root
        self._real_root = os.path.realpath(root)
        self._parts = parts
        self._matches = re.compile(glob_translate("/".join(parts))).match
        self._recursive_from = parts.index("**") if "**" in parts else len(parts)
        self._inside = inside

    def is_inside(self, path: str) -> bool:
        """Whether a path lies below the top when all links are followed."""
        return Path(os.path.realpath(path)).is_relative_to(self._real_root)

    def folder(self, place: _FolderLevel) -> None:
        """Take the files of a folder and of those below it."""
        for entry in self._entries(place):
            inner = (*place.inner, entry.name)
            name, depth = "/".join(inner), len(inner)
            # Where the pattern goes down no further, and where a folder's name does not fit it.
            last = self._recursive_from == len(self._parts) and depth == len(self._parts)
            fits = depth > self._recursive_from or fnmatchcase(entry.name, self._parts[depth - 1])
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                if fits or self._matches(name):
                    self.skipped[name] = (
                        f"is a link to nothing, or cannot be read ({error.strerror})"
                    )
                continue
            if stat.S_ISDIR(mode):
                if not last and fits and self._enters(entry, name, place):
                    real = os.path.realpath(entry.path)
                    self.folder(_FolderLevel(entry.path, inner, (*place.around, real)))
            elif self._matches(name) and self._takes(entry, name, mode):
                self.files.append(name)

    def _entries(self, place: _FolderLevel) -> Iterator[os.DirEntry[str]]:
        name = "/".join(place.inner) or "."
        if len(place.inner) >= MOST_FOLDERS:
            self.skipped[name] = f"lies below {MOST_FOLDERS} folders"
            return
        try:
            with os.scandir(place.path) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.skipped[name] = f"cannot be read ({error.strerror})"

    def _enters(self, entry: os.DirEntry[str], name: str, place: _FolderLevel) -> bool:
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        if self._leads_out(entry, name):
            return False
        if real in place.around or Path(self._real_root).is_relative_to(real):
            self.skipped[name] = f"is a link to a folder around it, {real}"
            return False
        return True

    def _takes(self, entry: os.DirEntry[str], name: str, mode: int) -> bool:
        if entry.is_symlink() and self._leads_out(entry, name):
            return False
        if not stat.S_ISREG(mode):
            self.skipped[name] = "is a pipe, a socket or a device, no regular file"
            return False
        return True

    def _leads_out(self, entry: os.DirEntry[str], name: str) -> bool:
        out = self._inside and not self.is_inside(entry.path)
        if out:
            real = os.path.realpath(entry.path)
            self.skipped[name] = f"is a link that leads out of {self._root}, to {real}"
        return out
