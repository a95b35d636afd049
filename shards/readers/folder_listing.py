"""Which recordings the ``recording.yaml`` files of a source describe, and what they leave out.

listing = list_recordings(source)
listing.refs  # the recordings; one with a wrong description fails when it is opened
listing.left_out  # "ben/monday: it holds none of w.csv; the nearest is 'W.csv'"
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from primus_scale.storage.names import nearest, quoted
from shards.files.source import Source
from shards.readers.name_patterns import LABEL, PLACEMENT, Named, NamePattern
from shards.readers.recording_yaml import DeviceFile, RecordingFile, load_yaml
from shards.readers.unread import folders_around
from shards.recording import RecordingRef

DESCRIPTION = "recording.yaml"
WINDOWS = "windows.yaml"
_MOST_NAMED = 3  # files of a folder


class Listing(NamedTuple):
    """refs: by name. left_out: a line on each folder that fits a pattern, but is no recording."""

    refs: list[RecordingRef]
    left_out: list[str]


def list_recordings(source: Source) -> Listing:
    """All recordings described below the source; FileNotFoundError where there are none."""
    files = source.find("**/*")
    described = [path for path in files if posixpath.basename(path) == DESCRIPTION]
    refs: list[RecordingRef] = []
    left_out: list[str] = []
    for path in described:
        found, lines = _recordings_of(source, path, files)
        refs += found
        left_out += lines
    if not refs:
        skipped = "; ".join(f"{path} {why}" for path, why in sorted(source.skipped.items())[:3])
        raise FileNotFoundError(
            f"no {DESCRIPTION} below {source.url}{f' ({skipped})' if skipped else ''}; write one "
            "next to your files, as docs/folder.md shows, or have one drafted by `primus-scale "
            f"shards init folder --src {source.url}`"
        )
    return Listing(_named_once(source, refs), left_out)


def placement_of(device: DeviceFile, recording: str, placement: str | None, where: str) -> str:
    """Where a device is worn in a recording, see ``_chosen``."""
    worn = _chosen(device.placement, recording, PLACEMENT, placement)
    if worn is None:
        raise ValueError(
            f"{where}: device {quoted(device.name)} has no placement in {quoted(recording)}: none "
            f"of {', '.join(map(quoted, device.placement))} fits; add a pattern that does"
        )
    return worn


def label_of(described: RecordingFile, recording: str, label: str | None, where: str) -> str | None:
    """The label of a whole recording, see ``_chosen``; None where the description has none."""
    if described.label is None:
        return None
    chosen = _chosen(described.label, recording, LABEL, label)
    if chosen is None:
        raise ValueError(
            f"{where}: label: {quoted(recording)} has none: none of "
            f"{', '.join(map(quoted, described.label))} fits; add a pattern that does"
        )
    return chosen


def _chosen(
    given: str | Mapping[str, str], recording: str, wildcard: str, word: str | None
) -> str | None:
    """The text of a description for one recording; None where none of its patterns fits.

    given: a text for all recordings, or texts by pattern. recording: its path below the
    description. word: the part of that path which fits ``wildcard``; None where the pattern
    ``recordings`` does not have this wildcard.
    """
    if isinstance(given, str):
        plain = " ".join(re.split(r"[_\-\s]+", word or "")).strip().lower()
        return given.replace(wildcard, plain)
    for pattern, text in given.items():
        if fnmatchcase(f"/{recording}", f"*/{pattern}") or word == pattern:
            return text
    return None


def _recordings_of(
    source: Source, path: str, files: Sequence[str]
) -> tuple[list[RecordingRef], list[str]]:
    """The recordings of the description at ``path``, and lines on folders that hold none."""
    top = posixpath.dirname(path)
    try:
        described = load_yaml(RecordingFile, source, path)
    except (ValueError, OSError) as error:  # reported when it is opened, so the others are read
        return [_failed(source, path, str(error))], []
    if described.recordings is None:
        return [_ref(source, described, path, Named(top, {}), described.name)], []
    find = _by_file if described.by_file else _by_folder
    found, left_out = find(described, NamePattern(top, described.recordings), files)
    if found:
        return [_ref(source, described, path, named) for named in found], left_out
    pattern, names = posixpath.join(top, described.recordings), sorted(described.files().values())
    problem = (
        f"no file is called {' or '.join(dict.fromkeys(names))} where {{recording}} is {pattern}"
        if described.by_file
        else f"no folder {pattern} holds {' or '.join(dict.fromkeys(names))}"
    )
    fault = (
        f"{source.locate(path)}: recordings: {problem}; correct the pattern, or the files' names"
    )
    return [_failed(source, path, fault)], left_out


def _by_folder(
    described: RecordingFile, pattern: NamePattern, files: Sequence[str]
) -> tuple[list[Named], list[str]]:
    """Folders that fit the pattern and hold a described file; lines on those without such files."""
    named = sorted(set(described.files().values()))
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for folder in folders_around(file):
            folders[folder].append(file.removeprefix(f"{folder}/"))
    found, left_out = [], []
    for folder, inner in sorted(folders.items()):
        if (one := pattern.of_folder(folder)) is None:
            continue
        if set(named).isdisjoint(inner):
            near = nearest(named[0], inner)
            left_out.append(f"{folder}: it holds none of {', '.join(named[:_MOST_NAMED])}{near}")
        else:
            found.append(one)
    return found, left_out


def _by_file(
    described: RecordingFile, pattern: NamePattern, files: Sequence[str]
) -> tuple[list[Named], list[str]]:
    """Recordings with at least one file; see ``NamePattern.recording_of``."""
    names = list(dict.fromkeys(described.files().values()))
    found: dict[str, Named] = {}
    for file in files:
        if (one := pattern.recording_of(file, names)) is not None:
            found.setdefault(one.path, one)
    return [found[path] for path in sorted(found)], []


def _ref(
    source: Source, described: RecordingFile, path: str, named: Named, name: str | None = None
) -> RecordingRef:
    """A recording as it is listed. details: path, folder of the files, fields of the name."""
    folder, own = named.path, described
    if described.by_file:
        folder, _, last = named.path.rpartition("/")
        own = described.of(last)
    files = (posixpath.join(folder, file) for file in own.files().values())
    details = {"recording": named.path, "folder": folder, **named.fields}
    return RecordingRef(name or _name(source, named.path), (path, *dict.fromkeys(files)), details)


def _failed(source: Source, path: str, error: str) -> RecordingRef:
    """A recording that cannot be opened, for the reason given."""
    return RecordingRef(_name(source, posixpath.dirname(path)), (path,), {"error": error})


def _name(source: Source, path: str) -> str:
    """The name of a recording without a name of its own: its path below the source."""
    return path.replace("/", "-") or source.url.rpartition("/")[2] or "folder"


def _named_once(source: Source, refs: list[RecordingRef]) -> list[RecordingRef]:
    """The recordings by name. Those that share a name fail, each listed with its path."""
    by_name: dict[str, list[RecordingRef]] = defaultdict(list)
    for ref in refs:
        by_name[ref.name].append(ref)
    listed: list[RecordingRef] = []
    for name, alike in by_name.items():
        if len(alike) == 1:
            listed += alike
            continue
        one_yaml = len({ref.files[0] for ref in alike}) == 1  # then its pattern fits both
        paths = [ref.files[-1] if one_yaml else ref.files[0] for ref in alike]
        both = " and ".join(map(source.locate, paths[:_MOST_NAMED]))
        verb = "are both of" if one_yaml else "both describe"
        for number, (ref, path) in enumerate(zip(alike, paths, strict=True), start=1):
            error = ref.details.get("error") or (
                f"{both} {verb} a recording called {name}; give one another name"
            )
            own = f"{name} ({number}: {path})"
            listed.append(RecordingRef(own, ref.files, {"error": error}))
    return sorted(listed, key=lambda ref: ref.name)
