"""What a split comes to: units, people and windows of each class on each side, as a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from primus_scale.counted import counted
from primus_scale.sample import WindowMeta
from primus_scale.splits.sides import Unit, units_of
from primus_scale.splits.words import LABEL, PLURALS, SIDES, TEST, UNUSED
from primus_scale.storage.names import alike

NO_LABEL = "(no label)"
_MOST_NAMED = 5  # units in a message
_TITLES = {LABEL: "for labels", TEST: "for the test", UNUSED: "unused"}


class SplitCounts:
    """Counts of the windows of each side. side_of: the side of each window, in order."""

    def __init__(self, metas: Sequence[WindowMeta], by: str, sides: Mapping[Unit, str]) -> None:
        self._by = by
        units = units_of(metas, by)
        self.side_of = [sides[unit] for unit in units]
        self.windows_of = Counter(units)
        self._units = Counter(sides.values())
        self._windows = Counter(self.side_of)
        self._classes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._units_with: defaultdict[str, set[Unit]] = defaultdict(set)
        self._people: defaultdict[str, set[Unit]] = defaultdict(set)
        self._people_of: dict[str, str] = {}  # the side of each person, the last where several
        people = units_of(metas, "person")
        for meta, side, unit, person in zip(metas, self.side_of, units, people, strict=True):
            label = meta.label if meta.label is not None else NO_LABEL
            self._classes[label][side] += 1
            self._people[side].add(person)
            if side != UNUSED:
                self._people_of[str(person)] = side
            if side != UNUSED:
                self._units_with[label].add(unit)
        assert self._windows.total() == len(metas) == self.windows_of.total()

    @property
    def shared_people(self) -> int:
        """People with windows on both sides; none where people are the units."""
        return len(self._people[LABEL] & self._people[TEST])

    @property
    def classes(self) -> list[str]:
        """Names of the classes with windows on some side, sorted."""
        return sorted(
            name
            for name, counts in self._classes.items()
            if name != NO_LABEL and counts[LABEL] + counts[TEST]
        )

    def check_classes(self, other_choice: str) -> None:
        """ValueError where windows of a class are for the test only, so that nobody can learn it.

        other_choice: how to make another split, for the message.
        """
        lacking = [name for name in self.classes if not self._classes[name][LABEL]]
        if lacking:
            holders = sorted(map(str, self._units_with[lacking[0]]))
            named = ", ".join(holders[:_MOST_NAMED]) + ", ..." * (len(holders) > _MOST_NAMED)
            raise ValueError(
                f"class {lacking[0]!r} has windows for the test and none for labels, so it could "
                f"not be learnt; the {PLURALS[self._by]} with windows of it are {named}: "
                f"{other_choice}, or leave the class out of the data"
            )

    def warnings(self) -> Iterator[str]:
        """Sentences on what one should know about the split."""
        if lacking := [name for name in self.classes if not self._classes[name][TEST]]:
            yield f"no window for the test is of {', '.join(lacking)}: such classes are not tested"
        for what, names in (("people", self._people_of), ("classes", self.classes)):
            for group in alike(names):
                if what == "classes" or len({*map(self._people_of.get, group)}) > 1:
                    yield (
                        f"{' and '.join(group)} are spelt differently and count as {len(group)} "
                        f"{what}; rename them in the data if they are the same"
                    )
        if shared := self.shared_people:
            are = f"{counted(shared, 'person', 'people')} {'is' if shared == 1 else 'are'}"
            yield (
                f"{are} on both sides, so that the test tells nothing of "
                "people never seen; evaluate refuses that without --may-share people"
            )

    def table(self) -> str:
        """Lines with the number of units, people and windows of each class, a column for a side."""
        sides = [side for side in SIDES if self._units[side]]
        rows = [("", [_TITLES[side] for side in sides])]
        rows.append((PLURALS[self._by], [f"{self._units[side]:,}" for side in sides]))
        if self._by != "person":
            rows.append(("people", [f"{len(self._people[side]):,}" for side in sides]))
        rows.append(("windows", [f"{self._windows[side]:,}" for side in sides]))
        names = sorted(self._classes, key=lambda name: (name == NO_LABEL, name))
        for name in names:
            rows.append((f"  {name}", [f"{self._classes[name][side]:,}" for side in sides]))
        width = max(len(title) for title, _ in rows)
        return "\n".join(
            f"{title:<{width}}" + "".join(f"{cell:>14}" for cell in cells) for title, cells in rows
        )
