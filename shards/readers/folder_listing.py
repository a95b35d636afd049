"""Which recordings the ``recording.yaml`` files of a source describe, and what they leave aside.

listing = list_recordings(source)
listing.refs  # one for each folder described; a wrong description is one that fails when opened
listing.left  # "ben/monday: it holds none of w.csv; the nearest is 'W.csv'"
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from primus_scale.storage.names import quoted
from shards.files.source import Source
from shards.nearest import nearest
from shards.readers.recording_yaml import (
    PERSON,
    PLACEMENT,
    DeviceFile,
    RecordingFile,
    load_yaml,
)
from shards.readers.unread import folders_around
from shards.recording import RecordingRef

DESCRIPTION = "recording.yaml"
WINDOWS = "windows.yaml"
_MOST_NAMED = 3  # files of a folder


class Listing(NamedTuple):
    """refs: by name. left: lines on folders that a pattern fits, and that are no recording."""

    refs: list[RecordingRef]
    left: list[str]


def list_recordings(source: Source) -> Listing:
    """All that is described below the source; FileNotFoundError where nothing is."""
    files = source.find("**/*")
    described = [path for path in files if posixpath.basename(path) == DESCRIPTION]
    refs: list[RecordingRef] = []
    left: list[str] = []
    for path in described:
        found, without = _described(source, path, files)
        refs += found
        left += without
    if not refs:
        aside = "; ".join(f"{path} {why}" for path, why in sorted(source.skipped.items())[:3])
        raise FileNotFoundError(
            f"no {DESCRIPTION} below {source.url}{f' ({aside})' if aside else ''}; write one "
            "beside your files, as docs/folder.md shows, or have one drafted by `primus-scale "
            f"shards init folder --src {source.url}`"
        )
    return Listing(_named_once(source, refs), left)


def placement_of(device: DeviceFile, folder: str, placement: str | None, where: str) -> str:
    """Where a device is worn in the recording of a folder.

    folder: below that of the description. placement: what its name says of it, where the pattern
    has ``{placement}``. ValueError where no pattern of the mapping fits.
    """
    if isinstance(device.placement, str):
        word = " ".join(re.split(r"[_\-\s]+", placement or "")).strip().lower()
        return device.placement.replace(PLACEMENT, word)
    for pattern, worn in device.placement.items():
        if fnmatchcase(f"/{folder}", f"*/{pattern}") or placement == pattern:
            return worn
    raise ValueError(
        f"{where}: device {quoted(device.name)} has no placement in {quoted(folder)}: none of "
        f"{', '.join(map(quoted, device.placement))} fits; add a pattern that does"
    )


def _described(
    source: Source, path: str, files: Sequence[str]
) -> tuple[list[RecordingRef], list[str]]:
    """The recordings of the description at ``path``, and lines on folders that hold none."""
    top = posixpath.dirname(path)
    try:
        described = load_yaml(RecordingFile, source, path)
    except (ValueError, OSError) as error:  # told when it is opened; others are read all the same
        return [_failed(source, path, str(error))], []
    if described.recordings is None:
        return [_ref(source, described, path, top, described.name)], []
    named = set(described.files().values())
    people = _people(posixpath.join(top, described.recordings))
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for folder in folders_around(file):
            if people.fullmatch(folder):
                folders[folder].append(file.removeprefix(f"{folder}/"))
    refs, left = [], []
    for folder, inner in sorted(folders.items()):
        match = people.fullmatch(folder)
        assert match is not None
        if named.isdisjoint(inner):
            near = nearest(sorted(named)[0], inner)
            left.append(
                f"{folder}: it holds none of {', '.join(sorted(named)[:_MOST_NAMED])}{near}"
            )
            continue
        refs.append(_ref(source, described, path, folder, None, match))
    if not refs:
        fault = (
            f"{source.locate(path)}: recordings: no folder "
            f"{posixpath.join(top, described.recordings)} holds {' or '.join(sorted(named))}; "
            "correct the pattern, or the names of the files"
        )
        return [_failed(source, path, fault)], left
    return refs, left


def _ref(
    source: Source,
    described: RecordingFile,
    path: str,
    folder: str,
    name: str | None,
    match: re.Match[str] | None = None,
) -> RecordingRef:
    files = (posixpath.join(folder, file) for file in described.files().values())
    said = match.groupdict() if match else {}
    details = {
        "folder": folder,
        "person": said.get("person"),
        "placement": said.get("placement"),
    }
    return RecordingRef(name or _name(source, folder), (path, *dict.fromkeys(files)), details)


def _failed(source: Source, path: str, error: str) -> RecordingRef:
    """A recording that cannot be opened, for the reason given."""
    return RecordingRef(_name(source, posixpath.dirname(path)), (path,), {"error": error})


def _name(source: Source, folder: str) -> str:
    """Of a recording that has none of its own: its folders below the source."""
    return folder.replace("/", "-") or source.url.rpartition("/")[2] or "folder"


def _named_once(source: Source, refs: list[RecordingRef]) -> list[RecordingRef]:
    """By name; those of one name fail, each under a name with its description's path."""
    by_name: dict[str, list[RecordingRef]] = defaultdict(list)
    for ref in refs:
        by_name[ref.name].append(ref)
    listed: list[RecordingRef] = []
    for name, alike in by_name.items():
        if len(alike) == 1:
            listed += alike
            continue
        paths = " and ".join(source.locate(ref.files[0]) for ref in alike[:_MOST_NAMED])
        for number, ref in enumerate(alike, start=1):
            error = ref.details.get("error") or (
                f"{paths} both describe a recording called {name}; give one another name"
            )
            own = f"{name} ({number}: {ref.files[0]})"
            listed.append(RecordingRef(own, ref.files, {"error": error}))
    return sorted(listed, key=lambda ref: ref.name)


def _people(pattern: str) -> re.Pattern[str]:
    """Matches a folder by a pattern of RecordingFile, and the person and placement in it."""
    return re.compile(
        re.escape(pattern)
        .replace(re.escape("*"), "[^/]*")
        .replace(re.escape(PERSON), "(?P<person>[^/]+)")
        .replace(re.escape(PLACEMENT), "(?P<placement>[^/]+)")
    )
