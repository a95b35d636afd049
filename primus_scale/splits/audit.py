"""The audit of a split: what two sides share, kind by kind, with counts and examples.

    found = audit(read_spans("tasks/label"), read_spans("tasks/test"))
    print(format_audit(found))
    refuse(found)   # ValueError where the test would be on people or samples of the labels

Nothing is taken to be apart that cannot be compared: its kind is then *not known*.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from primus_scale.splits.sides import known_person
from primus_scale.splits.spans import Spans
from primus_scale.storage.names import alike

PEOPLE, INTERVALS, COPIES = "people", "intervals", "copies"
REFUSED = (PEOPLE, INTERVALS, COPIES)  # by an evaluation
MOST_EXAMPLES = 3
_TOUCHING_S = 1e-6  # intervals that have less than that in common do not overlap
_ADVICE = {
    PEOPLE: "the test would measure how well they are remembered: put all windows of a person on "
    "one side (primus-scale shards split does so)",
    INTERVALS: "the test would be on samples that labels are given for: put all windows of a "
    "recording on one side (primus-scale shards split does so)",
    COPIES: "the test would be on samples that labels are given for: keep one of the copies",
}


@dataclass(frozen=True)
class Shared:
    """What two sides share of one kind.

    number: how many are on both sides; None: not known. of: how many each side has. examples: some
    of them, with the numbers of stretches on each side in ``counts``, where they are names. note:
    what was compared, or why it is not known.
    """

    kind: str
    number: int | None
    of: tuple[int, int] = (0, 0)
    examples: tuple[str, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Audit:
    """What two sides share, kind by kind. names: of the sides. stretches: how many each has."""

    names: tuple[str, str]
    stretches: tuple[int, int]
    shared: tuple[Shared, ...]

    def __getitem__(self, kind: str) -> Shared:
        return next(one for one in self.shared if one.kind == kind)

    def kinds(self, may_share: Collection[str] = ()) -> tuple[str, ...]:
        """The kinds of which something is shared, but for those that may be."""
        return tuple(s.kind for s in self.shared if s.number and s.kind not in may_share)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        tree: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # lists for tuples
        return tree


class _Meeting(NamedTuple):
    """A stretch of the first side (row) that shares time with one of the second (other)."""

    row: int
    other: int


def audit(a: Spans, b: Spans) -> Audit:
    """Compare two sides.

    People and recordings are those of one name in one data set, or of one name where a side does
    not name data sets. Captures are those of one name, and recordings with a moment on both sides,
    by whatever device. Days are dates. Intervals are stretches of one device of a recording that
    overlap in time: they share samples; counted are those of the first side. Copies are windows of
    equal samples, under whatever name.
    """
    keys = _Keys.of(a, b)
    times = _comparable_times(a, b)
    shared = (
        _people(a, b),
        _recordings(a, b, keys),
        _captures(a, b, keys, times),
        _days(a, b),
        _intervals(a, b, keys, times),
        _copies(a, b),
    )
    return Audit((a.name, b.name), (len(a), len(b)), shared)


def refuse(found: Audit, may_share: Collection[str] = ()) -> None:
    """ValueError where a side is tested on what the other one has labels for, naming it.

    That is where people, copies, or intervals of one person are on both sides, and ``may_share``
    does not hold that kind. Intervals of different people are not refused: recordings of several
    people may have one name.
    """
    shared = found.kinds()
    for kind in REFUSED:
        if kind not in shared or kind in may_share or (kind == INTERVALS and PEOPLE not in shared):
            continue
        one = found[kind]
        more = (one.number or 0) - len(one.examples)
        some = ", ".join(one.examples) + (f" and {more} more" if more > 0 else "")
        raise ValueError(
            f"{kind} {some} are in {found.names[0]} and in {found.names[1]}; {_ADVICE[kind]}, "
            f"or allow it (--may-share {kind})"
        )


def format_audit(found: Audit) -> str:
    """A line for each kind: what is shared, of how many, with examples."""
    sides = " and ".join(
        f"{name} ({count:,})" for name, count in zip(found.names, found.stretches, strict=True)
    )
    lines = [f"shared by {sides}:"]
    for one in found.shared:
        if one.number is None:
            said = "not known"
        else:
            of = " and ".join(f"{count:,}" for count in one.of)
            said = f"{f'{one.number:,}' if one.number else 'none':<6} of {of}"
        note = f" ({one.note})" if one.note else ""
        lines.append(f"  {one.kind:<12}{said}{note}")
        for example, counts in zip_longest(one.examples, one.counts):
            lines.append(f"    {example}{' ({:,} and {:,})'.format(*counts) if counts else ''}")
        more = (one.number or 0) - len(one.examples)
        if one.examples and more > 0:
            lines.append(f"    and {more:,} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Keys:
    """Names of recordings and of devices that can be compared, for each side."""

    recording: tuple[np.ndarray, np.ndarray] | None
    device: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, a: Spans, b: Spans) -> _Keys:
        recording = (_named(a, "recording", b), _named(b, "recording", a))
        known = a.recording is not None and b.recording is not None
        device = None if a.device is None or b.device is None else (a.device, b.device)
        return cls(recording if known else None, device)


def _named(own: Spans, column: str, other: Spans) -> np.ndarray:
    """The names of a column, with the data set where both sides name it; empty if not known."""
    names = getattr(own, column)
    if names is None:
        return np.full(len(own), "", dtype=object)
    if own.dataset is None or other.dataset is None:
        return names
    pairs = zip(own.dataset, names, strict=True)
    return np.array([f"{d}/{name}" if name else "" for d, name in pairs], dtype=object)


def _people(a: Spans, b: Spans) -> Shared:
    if a.dataset is None or b.dataset is None:
        return _common(PEOPLE, a.person, b.person)
    datasets = {*a.dataset, *b.dataset}

    def names(side: Spans, of: np.ndarray) -> np.ndarray:
        pairs = list(zip(of, side.person, strict=True))
        known = {pair: str(known_person(*pair, datasets)) for pair in set(pairs)}
        return np.array([known[pair] for pair in pairs], dtype=object)

    return _common(PEOPLE, names(a, a.dataset), names(b, b.dataset))


def _recordings(a: Spans, b: Spans, keys: _Keys) -> Shared:
    if keys.recording is None:
        return Shared("recordings", None, note="a side names no recordings")
    return _common("recordings", *keys.recording)


def _captures(a: Spans, b: Spans, keys: _Keys, times: str) -> Shared:
    """Captures of one name, and recordings of which both sides have the same moment."""
    named = a.capture is not None and b.capture is not None
    moments = {} if times or keys.recording is None else _moments(a, b, keys.recording)
    if not named:
        if times or keys.recording is None:
            why = times or "a side names no recordings"
            return Shared("captures", None, note=f"no capture is named, and {why}")
        of = (len(set(keys.recording[0]) - {""}), len(set(keys.recording[1]) - {""}))
        examples = tuple(moments.values())[:MOST_EXAMPLES]
        note = "no capture is named: moments of one recording were compared"
        return Shared("captures", len(moments), of, examples, note=note)
    found = _common("captures", _named(a, "capture", b), _named(b, "capture", a))
    examples = (*found.examples, *moments.values())[:MOST_EXAMPLES]
    return replace(found, number=(found.number or 0) + len(moments), examples=examples)


def _moments(a: Spans, b: Spans, recording: tuple[np.ndarray, np.ndarray]) -> dict[str, str]:
    """By recording an example of a moment on both sides, unless their captures have one name."""
    found: dict[str, str] = {}
    for row, other in _meetings(a, b, recording):
        name = recording[0][row]
        if name in found or (_cell(a, "capture", row) or " ") == _cell(b, "capture", other):
            continue
        devices = [_cell(a, "device", row), _cell(b, "device", other)]
        first, second = (f" of {device}" if device else "" for device in devices)
        found[name] = f"{name}: {_stretch(a, row)}{first}, {_stretch(b, other)}{second}"
    return found


def _days(a: Spans, b: Spans) -> Shared:
    if a.day is None or b.day is None:
        return Shared("days", None, note="the data name no dates")
    known = [int(np.count_nonzero(days)) for days in (a.day, b.day)]
    note = ""
    if known != [len(a), len(b)]:
        note = f"known for {known[0]:,} of {len(a):,} and {known[1]:,} of {len(b):,}"
    return _common("days", a.day, b.day, note=note)


def _intervals(a: Spans, b: Spans, keys: _Keys, times: str) -> Shared:
    if times or keys.recording is None:
        return Shared(INTERVALS, None, note=times or "a side names no recordings")
    note = "" if keys.device else "a side names no devices: all of a recording count as one"
    names = keys.recording
    if keys.device:
        names = (_joined(names[0], keys.device[0]), _joined(names[1], keys.device[1]))
    found = list(_meetings(a, b, names))
    examples = tuple(
        f"{names[0][row]}: {_stretch(a, row)} and {_stretch(b, other)}"
        for row, other in found[:MOST_EXAMPLES]
    )
    return Shared(INTERVALS, len(found), (len(a), len(b)), examples, note=note)


def _copies(a: Spans, b: Spans) -> Shared:
    if a.samples is None or b.samples is None:
        return Shared(COPIES, None, note="a side has no samples")
    _, rows, others = np.intersect1d(a.samples, b.samples, return_indices=True)
    examples = tuple(
        f"{_described(a, row)} is {_described(b, other)}"
        for row, other in sorted(zip(rows, others, strict=True))[:MOST_EXAMPLES]
    )
    return Shared(COPIES, len(rows), (len(a), len(b)), examples)


def _common(kind: str, a: np.ndarray, b: np.ndarray, note: str = "") -> Shared:
    """Names that occur in both columns; examples with their numbers of stretches."""
    counts = [Counter(name for name in side if name) for side in (a, b)]
    common = sorted(counts[0].keys() & counts[1].keys())
    some = tuple(common[:MOST_EXAMPLES])
    if not note:
        note = spelt_differently(counts[0].keys(), counts[1].keys())
    stretches = tuple((counts[0][name], counts[1][name]) for name in some)
    return Shared(kind, len(common), (len(counts[0]), len(counts[1])), some, stretches, note)


def spelt_differently(a: Collection[str], b: Collection[str]) -> str:
    """Which names of the two sides differ in their spelling only, so that they are not shared."""
    groups = [group for group in alike({*a, *b}) if _is_between(group, a, b)]
    if not groups:
        return ""
    more = len(groups) - MOST_EXAMPLES
    some = ", ".join(" and ".join(group) for group in groups[:MOST_EXAMPLES])
    some += f" and {more} more" if more > 0 else ""
    return f"spelt differently and counted as different: {some}; rename them if they are the same"


def _is_between(group: Collection[str], a: Collection[str], b: Collection[str]) -> bool:
    """Whether a name of ``a`` and another one of ``b`` are in a group."""
    return any(one in a and other in b for one in group for other in group if one != other)


def _joined(recordings: np.ndarray, devices: np.ndarray) -> np.ndarray:
    pairs = zip(recordings, devices, strict=True)
    return np.array([f"{name}, {device}" if name else "" for name, device in pairs], dtype=object)


def _cell(side: Spans, column: str, row: int) -> str:
    values = getattr(side, column)
    return "" if values is None else str(values[row])


def _comparable_times(a: Spans, b: Spans) -> str:
    """Why the times of the sides cannot be compared; empty where they can be."""
    for side in (a, b):
        if side.start_s is None or side.end_s is None or np.isnan(side.start_s).all():
            return f"{side.name} gives no start and end"
    if a.dated != b.dated and not (a.since_1970 and b.since_1970):
        return "times are dates on one side and seconds on the other"
    if {a.since_1970, b.since_1970} == {True, False}:
        return "times are seconds since 1970 on one side only"
    return ""


def _meetings(a: Spans, b: Spans, names: tuple[np.ndarray, np.ndarray]) -> Iterator[_Meeting]:
    """For each stretch of ``a`` one of ``b`` of the same name that overlaps it, if there is any."""
    own, others = _rows_by(names[0], a), _rows_by(names[1], b)
    for name in sorted(own.keys() & others.keys()):
        yield from _overlaps(a, b, own[name], others[name])


def _rows_by(names: np.ndarray, side: Spans) -> dict[str, np.ndarray]:
    """Rows with a name and times, by name."""
    assert side.start_s is not None
    timed = ~np.isnan(side.start_s)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name and timed[row]:
            rows[name].append(row)
    return {name: np.array(of_name) for name, of_name in rows.items()}


def _overlaps(a: Spans, b: Spans, own: np.ndarray, others: np.ndarray) -> Iterator[_Meeting]:
    """Stretches of ``a``, of these rows, that overlap one of these rows of ``b``.

    Among those of ``b`` that begin before a stretch ends, the one that ends last decides.
    """
    assert a.start_s is not None and a.end_s is not None
    assert b.start_s is not None and b.end_s is not None
    others = others[np.argsort(b.start_s[others], kind="stable")]
    ends = b.end_s[others]
    latest = np.maximum.accumulate(ends)
    which = np.maximum.accumulate(np.where(ends == latest, np.arange(len(ends)), 0))
    before = np.searchsorted(b.start_s[others], a.end_s[own] - _TOUCHING_S, side="left")
    for row, count in zip(own.tolist(), before.tolist(), strict=True):
        if count and latest[count - 1] > a.start_s[row] + _TOUCHING_S:
            yield _Meeting(row, int(others[which[count - 1]]))


def _stretch(side: Spans, row: int) -> str:
    assert side.start_s is not None and side.end_s is not None
    return f"{side.start_s[row]:g}-{side.end_s[row]:g} s"


def _described(side: Spans, row: int) -> str:
    recording = "" if side.recording is None else f"{side.recording[row]}, "
    return f"{recording}{_stretch(side, row)} of {side.person[row]}"
