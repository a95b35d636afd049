"""Guesses from names of files, for a draft: recordings, people and placements.

layout = guess_layout(["p01_acc.csv", "p01_gyro.csv", "p02_acc.csv", "p02_gyro.csv"], "study")
layout.recordings    # "{person}"
layout.files["p01"]  # {"p01_acc.csv": "{recording}_acc.csv", ...}
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from shards.readers.name_patterns import LABEL, PERSON, RECORDING, NamePattern, check_pattern

_PARTS = (
    "head|chest|back|waist|hip|pocket|upper[ _-]?arm|forearm|wrist|hand|thigh|shin|ankle|foot|arm|"
    "leg|belt|glasses|ear"
)
# Begin and end of a word: no letter before or after it, or a capital that begins the next word.
_CAMEL = "(?-i:(?<=[a-z])(?=[A-Z]))"
_BEGIN, _END = rf"(?:(?<![A-Za-z])|{_CAMEL})", rf"(?:(?![A-Za-z])|{_CAMEL})"
_PLACEMENT = re.compile(
    rf"{_BEGIN}(?:(?P<side>left|right)[ _-]?)?(?P<part>{_PARTS})(?:[ _-]?(?P<after>left|right))?"
    rf"{_END}",
    re.I,
)
KINDS = re.compile(
    r"accelerometers?|acceleration|accel|acc|gyroscopes?|gyro|gyr|rotation(rate)?", re.I
)
_KIND = re.compile(rf"{_BEGIN}(?:{KINDS.pattern}|labels?|annotations?){_END}", re.I)
_BETWEEN = " _-."
_PERSON = (
    r"(?:p|s|u|pp|vp|id|sub|subj|subject|participant|person|people|user|pat|patient|volunteer)"
)
_ACTIVITIES = re.compile(
    r"(?:walk|run|jog|sit|stand|l(?:ie|y)|cycl|bik|climb|danc|jump|row|swim|sleep|rest)"
    r"(?:[nmpgt]?ing|e|s)?|(?:up|down)?stairs|(?:up|down)stairs?|still|idle",
    re.I,
)
_GENERAL = re.compile(
    r"rec|recording|session|sess|trial|data|log|file|imu|sensor|day|week|test|exp|experiment|take|"
    r"part|block|visit|raw|(?:mon|tues|wednes|thurs|fri|satur|sun)day",
    re.I,
)


class NamedRecordings(NamedTuple):
    """Recordings that differ by names of files.

    recordings: the pattern. files: by path of a recording: its files below the source, each with
    its name in the description. person: of all, where the pattern has no person. why: reason of the
    guess. placements: by pattern of names.
    """

    recordings: str
    files: Mapping[str, Mapping[str, str]]
    person: str | None
    why: str
    placements: Mapping[str, str]

    @property
    def labelled(self) -> bool:
        """Whether names hold the activity."""
        return LABEL in self.recordings

    def first(self) -> tuple[str, Mapping[str, str]]:
        """The recording with most files (the first, if several have as many), and its files."""
        return max(self.files.items(), key=lambda item: len(item[1]))


class _Part(NamedTuple):
    """A file of a recording: the recording's path, and the file's name with a wildcard."""

    recording: str
    name: str


def placement_in(text: str) -> str | None:
    """The placement in a name; None where there is none."""
    match = _PLACEMENT.search(text)
    if match is None:
        return None
    side = match["side"] or match["after"] or ""
    part = re.sub(r"[ _-]", " ", match["part"].lower())
    return f"{side.lower()} {part}".strip()


def guess_layout(paths: Sequence[str], source: str) -> NamedRecordings | None:
    """The layout, if each table at one depth may be a recording; None if those of a folder are one.

    source: name of the folder that holds them.
    """
    parts = {path: _part(path) for path in paths}
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for path, part in parts.items():
        files[part.recording][path] = part.name
    folders: dict[str, list[str]] = defaultdict(list)
    for recording in files:
        folders[posixpath.dirname(recording)].append(posixpath.basename(recording))
    if not any(_are_apart(names) for names in folders.values()):
        return None
    keys = [name for names in folders.values() for name in names]
    if "" in keys:
        return None
    pattern, why = _pattern_of(sorted(folders), sorted(set(keys)))
    try:
        found = NamePattern("", check_pattern(pattern))
    except ValueError:  # names hold characters with a meaning in patterns
        return None
    fitting = {
        recording: names
        for recording, names in files.items()
        if all((one := found.of_file(p, n)) and one.path == recording for p, n in names.items())
    }
    person = None
    if PERSON not in pattern:
        outer = {folder.split("/")[0] for folder in folders}
        person = (outer.pop() if len(outer) == 1 else "") or source
    return (
        NamedRecordings(pattern, fitting, person, why, _placements(list(files)))
        if fitting
        else None
    )


def _part(path: str) -> _Part:
    """The recording that a file seems to belong to: its name without that of the sensor."""
    folder, file = posixpath.split(path)
    stem, suffix = posixpath.splitext(file)
    inner = posixpath.basename(folder)
    if _KIND.fullmatch(inner):  # acc/p01.csv next to gyro/p01.csv
        return _Part(
            posixpath.join(posixpath.dirname(folder), stem), f"{inner}/{RECORDING}{suffix}"
        )
    for match in _KIND.finditer(stem):
        before, after = stem[: match.start()].rstrip(_BETWEEN), stem[match.end() :].lstrip(_BETWEEN)
        key = before or after
        name = RECORDING + stem[len(key) :] if before else stem[: len(stem) - len(key)] + RECORDING
        return _Part(posixpath.join(folder, key), name + suffix)
    return _Part(posixpath.join(folder, stem), RECORDING + suffix)


def _are_apart(names: Sequence[str]) -> bool:
    """Whether files of a folder are several recordings, not devices of one recording."""
    if len(names) < 2:
        return False
    placements = Counter(map(placement_in, names))
    if None in placements:
        return len(placements) == 1  # if only some have one, it is not clear
    if max(placements.values()) > 1:
        return True
    others = {_PLACEMENT.sub("", name).strip(_BETWEEN) for name in names}
    return "" not in others and len(others) > 1


def _pattern_of(folders: Sequence[str], keys: Sequence[str]) -> tuple[str, str]:
    """A pattern for recordings by names of folders and files, and the reason."""
    levels = [
        sorted(set(level)) for level in zip(*(one.split("/") for one in folders), strict=True)
    ]
    parts = [_meaning(level) for level in levels]
    last, why = _pattern_of_names(keys, sure=PERSON in parts), "by the names of files"
    if PERSON in parts and PERSON not in last:
        why, outer = "the outermost folders are people's", parts.index(PERSON)
    else:
        outer = -1
    parts = ["*" if part == PERSON and n != outer else part for n, part in enumerate(parts)]
    if LABEL in parts:
        last = last.replace(LABEL, "*")
    return posixpath.join("", *parts, last), f"{why}; {len(keys)} of these"


def _meaning(names: Sequence[str]) -> str:
    """The wildcard for folders of one level: ``{person}`` if they may be people's names."""
    if len(names) == 1:
        return names[0]
    if all(map(_ACTIVITIES.fullmatch, names)):
        return LABEL
    if all(
        placement_in(name) or _GENERAL.fullmatch(re.sub(r"\W*\d*$", "", name)) for name in names
    ):
        return "*"
    return PERSON


def _placements(keys: Sequence[str]) -> dict[str, str]:
    """Placement by pattern of names, if all names have one; longer patterns come first."""
    found = [_PLACEMENT.search(key) for key in keys]
    words = {match[0] for match in found if match}
    if None in found:
        return {}
    return {f"*{word}*": placement_in(word) or "" for word in sorted(words, key=len, reverse=True)}


def _pattern_of_names(keys: Sequence[str], sure: bool) -> str:
    """A pattern for the names of the recordings. sure: only words such as ``p01`` are people."""
    split = [list(_words(key)) for key in keys]
    shortest = min(map(len, split))
    words: list[list[str]] = []
    between: list[str] = []
    for index in range(0, shortest, 2):
        words.append([one[index] for one in split])
        after = {one[index + 1] if index + 1 < len(one) else "" for one in split}
        if len(after) > 1 or after == {""}:
            break
        between.append(after.pop())
    wildcards = _meanings(words, sure)
    whole = len(words) * 2 - 1 == shortest == max(map(len, split))
    if not whole and wildcards[-1] not in (PERSON, "*"):  # the rest differs between names
        wildcards[-1] = "*"
    pattern = wildcards[0]
    for sign, one in zip(between, wildcards[1:], strict=False):
        pattern += sign + one
    if len(between) == len(wildcards) and between:  # some names are longer
        pattern += between[-1] + "*"
    for sign in dict.fromkeys(between):
        while f"*{sign}*" in pattern:
            pattern = pattern.replace(f"*{sign}*", "*")
    return pattern


def _words(key: str) -> Iterator[str]:
    """Words and separators, alternating; a placement of two words is one word."""
    inside = {index for match in _PLACEMENT.finditer(key) for index in range(*match.span())}
    marks = [character in _BETWEEN and index not in inside for index, character in enumerate(key)]
    for _, run in groupby(range(len(key)), key=marks.__getitem__):
        yield "".join(key[index] for index in run)


def _meanings(words: Sequence[Sequence[str]], sure: bool) -> list[str]:
    """For each position in the names: the word, or a wildcard where words differ."""
    wildcards: list[str] = []
    before = ""  # the word before, if it is the same in all names
    for index, values in enumerate(words):
        one = len(set(values)) == 1
        if PERSON not in wildcards and _are_people(values, before, not index and not sure):
            wildcards.append(PERSON)
        elif not one and LABEL not in wildcards and all(map(_ACTIVITIES.fullmatch, values)):
            wildcards.append(LABEL)
        else:
            wildcards.append(values[0] if one else "*")
        before = values[0] if one else ""
    return wildcards


def _are_people(values: Sequence[str], before: str, likely: bool) -> bool:
    """Whether words name people: by the words themselves, or by the word before them.

    likely: any word that looks like a name or a number counts as well.
    """
    if all(re.fullmatch(rf"{_PERSON}\d+[a-z]?", value, re.I) for value in values):
        return True
    if len(set(values)) == 1:
        return False
    if re.fullmatch(_PERSON, before, re.I):
        return True
    if not likely:
        return False
    if all(value.isdecimal() for value in values):
        years = all(re.fullmatch(r"(19|20)\d\d", value) for value in values)
        return max(map(len, values)) <= 5 and not years  # more digits are dates
    heads = {re.sub(r"\d+[a-z]?$", "", value, flags=re.I) for value in values}
    if any(
        not head
        or _ACTIVITIES.fullmatch(head)
        or _GENERAL.fullmatch(head)
        or _PLACEMENT.search(head)
        for head in heads
    ):
        return False
    return len(heads) > 1 or len(next(iter(heads))) < 4
