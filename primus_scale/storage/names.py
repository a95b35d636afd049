"""Names from files and users: check that they are safe to join to a folder; find the nearest one.

    check_name("state/optimizer.pt", "run/manifest.json")   # returns it
    check_name("../../.ssh/config", "run/manifest.json")    # ValueError naming both
    path_in(folder, "state/optimizer.pt", "run/manifest.json")
    nearest("persn", ("person", "unit"))   # "; the nearest is 'person'"

A manifest, an index, an archive or a report may have been written by somebody else. A file that it
names must lie below the intended folder on every storage: in a local folder, in an object store
(where ``//`` and ``.`` are parts of a name) and behind a web server (where ``%2e`` is a dot).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

MOST_BYTES = 1024  # of a whole name, as of a key in S3
MOST_PART_BYTES = 255  # of a file's or a folder's name, as on Linux
MOST_QUOTED = 80  # characters of a name in a message
_MOST_COMPARED = 1000  # names; comparing more takes long

_DRIVE = re.compile(r"[A-Za-z]:")
# Control characters, separators of lines, and what does not stand for a character by itself.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def check_name(name: object, what: str, *, plain: bool = False) -> str:
    """Return ``name`` if it may be joined to a folder: relative, below the folder, printable.

    what: where the name was read, for the message. plain: allow a file's name only, without
    folders. ValueError naming ``what`` and the name, shortened.
    """
    problem = _problem(name, plain) if isinstance(name, str) else "is no text"
    if problem is not None:
        raise ValueError(f"{what}: the name {quoted(name)} {problem}")
    assert isinstance(name, str)
    return name


def path_in(folder: Path, name: object, what: str) -> Path:
    """``folder / name``, if that lies in ``folder`` after links are followed.

    ValueError as ``check_name``, and where a link leads out of the folder.
    """
    path = folder / check_name(name, what)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{what}: the name {quoted(name)} leads out of {folder} by a link")
    return path


def quoted(name: object, most: int = MOST_QUOTED) -> str:
    """``name`` in quotes on one line; a name longer than ``most`` characters is shortened."""
    text = name if isinstance(name, str) else repr(name)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-(most // 2) :]} ({len(text):,} characters)"
    return repr(text) if isinstance(name, str) else text


def nearest(name: str, known: Iterable[str], kind: str = "") -> str:
    """``; the nearest KIND is '…'`` for the end of a message; empty where ``known`` is empty."""
    near = nearest_name(name, known)
    return f"; the nearest {kind}{' ' * bool(kind)}is {quoted(near)}" if near is not None else ""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` whose spelling is most like ``name``; None where ``known`` is empty."""
    some = list(known)[:_MOST_COMPARED]
    near = difflib.get_close_matches(name[:MOST_QUOTED], some, n=1, cutoff=0.0)
    return near[0] if near else None


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names that may be of one thing, such as ``Anna`` and ``anna``.

    They differ in case, in white space and separators, in leading zeros (``p1`` and ``p01``) or in
    how letters are encoded. Groups and the names in each are sorted.
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_-]+", " ", plain).strip())
        groups.setdefault(plain, set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def _problem(name: str, plain: bool) -> str | None:
    """Why ``name`` must not be joined to a folder; None where it may be."""
    if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        return "has characters that cannot be printed"
    parts = name.split("/")
    lengths = [len(part.encode()) for part in parts]
    if sum(lengths) + len(parts) - 1 > MOST_BYTES:
        return f"is longer than {MOST_BYTES:,} bytes"
    if max(lengths) > MOST_PART_BYTES:
        return f"has a part of more than {MOST_PART_BYTES} bytes"
    if "://" in name or "::" in name:
        return "is a URL; it must be relative to its folder"
    for form in dict.fromkeys((name, unquote(name))):
        if form.startswith(("/", "~", "\\")) or _DRIVE.match(form):
            return "is absolute; it must be relative to its folder"
        if "\\" in form or "\0" in form:
            return "has a backslash or a null byte in it"
        if any(part in ("", ".", "..") for part in form.split("/")):
            return "has an empty part, . or .. in it; it must lie below its folder"
    if plain and "/" in unquote(name):
        return "is not a plain file name"
    return None
