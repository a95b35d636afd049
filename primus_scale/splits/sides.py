"""Who is on which side: people, or other units of data, for labels and for the test.

    units = units_of(metas, "person")            # of each window
    sides = draw_sides(units, by="person", test=0.3, seed=0)  # {unit: "label" or "test"}

A unit is never divided. The sides depend on the names of the units and the seed only, so any two
folders with the same people are split alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from primus_scale.sample import WindowMeta, hash64
from primus_scale.splits.csv_table import CsvTable, read_csv, write_csv
from primus_scale.splits.words import LABEL, PLURALS, SIDES, TEST, UNITS, UNUSED
from primus_scale.storage.names import nearest, quoted

_MOST_NAMED = 8  # units in a message


class Unit(NamedTuple):
    """What is on one side as a whole. dataset: empty where it is of all data sets."""

    dataset: str
    name: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.name}" if self.dataset else self.name


def known_person(dataset: str, person: str, datasets: Collection[str]) -> Unit:
    """A person among those of ``datasets``.

    Names of people are unique within a data set. A name that begins with the name of another of the
    data sets is of that one: UCI HAR has the people of ``hapt``, and calls them ``hapt-01``, ...
    """
    owners = [name for name in datasets if person.startswith(f"{name}-")]
    return Unit(max(owners, key=len, default=dataset), person)


def units_of(metas: Sequence[WindowMeta], by: str) -> list[Unit]:
    """The unit of each window. by: of ``words.UNITS``."""
    if by in ("placement", "dataset"):
        return [Unit("", getattr(meta, by)) for meta in metas]
    if by != "person":
        return [Unit(meta.dataset, getattr(meta, by)) for meta in metas]
    datasets = {meta.dataset for meta in metas}
    pairs = {(meta.dataset, meta.person) for meta in metas}
    people = {pair: known_person(*pair, datasets) for pair in pairs}
    return [people[meta.dataset, meta.person] for meta in metas]


def draw_sides(units: Iterable[Unit], *, by: str, test: float, seed: int) -> dict[Unit, str]:
    """A side for each unit: the share ``test`` of them at random, at least one, and the others.

    The units are ordered by a hash of the seed and their names, and the first of them are tested.
    ValueError where the share does not lie between 0 and 1, or there is one unit only.
    """
    if not 0 < test < 1:
        raise ValueError(
            f"the share of {PLURALS[by]} for the test must lie between 0 and 1, got {test:g}"
        )
    different = sorted(set(units))
    _check_several(different, by)
    different.sort(key=lambda unit: hash64("\x1f".join((str(seed), *unit))))
    count = min(max(round(test * len(different)), 1), len(different) - 1)
    return {unit: TEST if place < count else LABEL for place, unit in enumerate(different)}


def name_sides(units: Iterable[Unit], *, by: str, test: Collection[str]) -> dict[Unit, str]:
    """A side for each unit: those that ``test`` names, as ``name`` or ``dataset/name``, are tested.

    ValueError naming the nearest where no unit has such a name, or all are tested.
    """
    different = sorted(set(units))
    _check_several(different, by)
    tested = _units_with_names(different, by, test)
    sides = {unit: TEST if unit in tested else LABEL for unit in different}
    if LABEL not in sides.values():
        raise ValueError(f"every {by} is for the test; leave one for the labels")
    return sides


def are_kept(metas: Sequence[WindowMeta], without: Mapping[str, Collection[str]]) -> list[bool]:
    """Whether each window is of none of the names in ``without``, such as ``{"placement": [...]}``.

    Its keys are of ``words.UNITS``, its names ``name`` or ``dataset/name``. ValueError naming the
    nearest where no window is of a name, or where no window is kept.
    """
    kept = [True] * len(metas)
    for by, names in without.items():
        units = units_of(metas, by)
        gone = _units_with_names(sorted(set(units)), by, names)
        kept = [keep and unit not in gone for keep, unit in zip(kept, units, strict=True)]
    if not any(kept):
        raise ValueError(f"no window is left; leave out fewer of {', '.join(without)}")
    return kept


def read_sides(
    place: str, metas: Sequence[WindowMeta], by: str | None
) -> tuple[str, dict[Unit, str]]:
    """The kind of unit and the side of each, as the CSV file at ``place`` says.

    Its columns are one of ``words.UNITS`` (``by``, where that is given), ``side`` with one of
    ``words.SIDES``, and possibly ``dataset``, where the same names are in several. Every unit of
    ``metas`` must have a side. ValueError naming file, line and the nearest name where that is not
    so.
    """
    table = read_csv(place, ["side"], UNITS)
    by = _unit_column(table, by)
    known = sorted(set(units_of(metas, by)))
    datasets = {meta.dataset for meta in metas}
    sides: dict[Unit, str] = {}
    for line, row in table.rows:
        side = row["side"].lower()
        if side not in SIDES:
            raise table.fault(
                line, f"side is {quoted(row['side'])}, and none of {', '.join(SIDES)}"
            )
        for unit in _named_units(table, line, row, by, known, datasets):
            if sides.setdefault(unit, side) != side:
                raise table.fault(
                    line, f"{by} {unit} is on side {sides[unit]} already; give it one side"
                )
    if missing := [str(unit) for unit in known if unit not in sides]:
        raise ValueError(
            f"{table.place} gives no side to {by} {_some(missing)}; add a line for each "
            f"(side {UNUSED} leaves its windows out)"
        )
    _check_several([unit for unit, side in sides.items() if side != UNUSED], by)
    for side in (LABEL, TEST):
        if side not in sides.values():
            raise ValueError(f"{table.place} gives side {side} to no {by}; give it to one at least")
    return by, sides


def sides_csv(by: str, sides: dict[Unit, str], windows: dict[Unit, int]) -> str:
    """The text of a CSV file with the side and the number of windows of each unit.

    ``read_sides`` reads it, so that others can make the same split of the same data.
    """
    units = sorted(sides)
    if any(unit.dataset for unit in units):
        columns = ("dataset", by, "side", "windows")
        return write_csv(columns, [(*unit, sides[unit], windows[unit]) for unit in units])
    return write_csv((by, "side", "windows"), [(u.name, sides[u], windows[u]) for u in units])


def _unit_column(table: CsvTable, by: str | None) -> str:
    """The column that names the units."""
    found = [name for name in table.columns if name in UNITS]
    if len(found) == 2 and "placement" not in found:  # placements are of all data sets
        found = [name for name in found if name != "dataset"]
    if len(found) != 1:
        raise ValueError(
            f"{table.place}: the first line must name side and one of {', '.join(UNITS)} "
            f"(with dataset beside it where data sets have equal names); it names "
            f"{', '.join(table.columns)}"
        )
    if by is not None and by != found[0]:
        raise ValueError(
            f"{table.place} gives sides to each {found[0]}, and --by says {by}; leave --by out, or "
            "give another file"
        )
    return found[0]


def _named_units(
    table: CsvTable,
    line: int,
    row: Mapping[str, str],
    by: str,
    known: Sequence[Unit],
    datasets: Collection[str],
) -> list[Unit]:
    """The units of ``known`` that a row names; without a data set, those of all data sets."""
    name = row[by]
    if not name:
        raise table.fault(line, f"column {by} is empty; fill it in")
    named = [unit for unit in known if unit.name == name]
    dataset = "" if by == "dataset" else row.get("dataset", "")
    if dataset:
        own = known_person(dataset, name, datasets) if by == "person" else Unit(dataset, name)
        named = [unit for unit in named if unit == own]
    if not named:
        near = nearest(name, sorted({unit.name for unit in known}), by)
        within = f" of data set {quoted(dataset)}" if dataset else ""
        raise table.fault(line, f"no window is of {by} {quoted(name)}{within}{near}")
    return named


def _units_with_names(units: Sequence[Unit], by: str, names: Collection[str]) -> set[Unit]:
    """Those of ``units`` that ``names`` names; ValueError where a name is of none."""
    known = {name for unit in units for name in (unit.name, str(unit))}
    for name in names:
        if name not in known:
            near = nearest(name, sorted(known), by)
            raise ValueError(f"no window is of {by} {quoted(name)}{near}")
    return {unit for unit in units if {unit.name, str(unit)} & set(names)}


def _check_several(units: Sequence[Unit], by: str) -> None:
    if len(units) < 2:
        of = f" ({units[0]})" if units else ""
        raise ValueError(
            f"the windows are of one {by} only{of}; a split needs two: add data of another one, or "
            f"split by {' or '.join(name for name in UNITS if name != by)} (--by)"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
