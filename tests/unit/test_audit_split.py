"""Every kind of overlap that is planted is found, and nothing else is."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primus_scale.cli import main
from primus_scale.sample import Window, WindowMeta, window_uid
from primus_scale.splits.audit import Audit, audit, format_audit, refuse
from primus_scale.splits.sides import known_person
from primus_scale.splits.spans import Spans, read_spans
from primus_scale.splits.words import KINDS
from shards.demo.hapt import PEOPLE, people_split
from shards.readers.uci import hapt_person
from tests.shard_factory import make_blocks, write_packed, write_windows

WINDOW_S = 40 / 50
UNIX_S = 1_700_000_000.0  # 2023-11-14, late in the evening in UTC


def meta(side: str, number: int, **changes: object) -> WindowMeta:
    """A window of a person and a recording of the side alone."""
    own = WindowMeta(
        uid=window_uid("set", f"{side}-{number}", "imu", 10.0),
        dataset="set",
        recording=f"{side}-{number}",
        device="imu",
        placement="chest",
        person=f"person-{side}-{number}",
        session=f"{side}-{number}",
        start_s=10.0,
        label="walk",
    )
    return replace(own, **changes)


def folder(url: Path, metas: Sequence[WindowMeta], seed: int, packed: bool = False) -> str:
    rng = np.random.default_rng(seed)
    windows = [
        Window(rng.standard_normal((6, 40)).astype(np.float32) + 9.8, replace(m, uid=seed + n))
        for n, m in enumerate(metas, start=1)
    ]
    if packed:
        write_packed(str(url), make_blocks(windows, block=2))
    else:
        write_windows(str(url), windows)
    return str(url)


def sides(tmp_path: Path, **planted: object) -> Audit:
    """The audit of two folders, whose second windows have what is planted: a pair of values."""
    both = []
    for number, name in enumerate("ab"):
        metas = [meta(name, n) for n in range(3)]
        metas[1] = replace(metas[1], **{key: pair[number] for key, pair in planted.items()})
        both.append(folder(tmp_path / name, metas, 100 * number, packed=number == 1))
    return audit(*map(read_spans, both))


PLANTED: dict[str, tuple[dict[str, tuple[object, object]], set[str]]] = {
    "nothing": ({}, set()),
    "a person": ({"person": ("p", "p")}, {"people"}),
    "a recording at other times": (
        {"recording": ("r", "r"), "start_s": (10.0, 10.8)},
        {"recordings"},
    ),
    "a moment on another device": (
        {"recording": ("r", "r"), "device": ("imu", "watch"), "start_s": (10.0, 10.4)},
        {"recordings", "captures"},
    ),
    "a part of a window": (
        {"recording": ("r", "r"), "start_s": (10.0, 9.3)},
        {"recordings", "captures", "intervals"},
    ),
    "a capture": ({"capture": ("c", "c"), "start_s": (10.0, 500.0)}, {"captures"}),
    "a day": ({"start_s": (UNIX_S, UNIX_S + 60)}, {"days"}),
    "a day of two clocks": (
        {"clock_zero": ("2023-11-13T23:59:00", "2023-11-14"), "start_s": (90.0, 9.0)},
        {"days"},
    ),
    "no day": (
        {"clock_zero": ("2023-11-13T23:59:00", "soon"), "start_s": (9.0, UNIX_S)},
        set(),
    ),
}


@pytest.mark.parametrize(("planted", "found"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found_and_nothing_else(
    tmp_path: Path, planted: dict[str, tuple[object, object]], found: set[str]
) -> None:
    result = sides(tmp_path, **planted)
    assert set(result.kinds()) == found
    for kind in found:
        assert result[kind].number == 1
        assert len(result[kind].examples) == 1
    assert result["days"].number is not None or "days" not in found


def test_equal_names_of_different_data_sets_are_not_shared_but_those_of_one_owner_are(
    tmp_path: Path,
) -> None:
    shared = sides(tmp_path / "1", dataset=("x", "y"), person=("p", "p"), recording=("r", "r"))
    assert shared.kinds() == ()
    shared = sides(tmp_path / "2", dataset=("hapt", "uci_har"), person=("hapt-01", "hapt-01"))
    assert shared["people"].examples == ("hapt/hapt-01",)
    assert str(known_person("z", "a-b-1", ["a", "z", "a-b"])) == "a-b/a-b-1"


def test_copies_of_windows_are_found_under_other_names(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", [meta("a", n) for n in range(3)], 0)
    two = folder(tmp_path / "b", [meta("b", n) for n in range(3)], 0)
    found = audit(read_spans(one), read_spans(two))
    assert found.kinds() == ("copies",)
    assert found["copies"].number == 3
    assert "a-0, 10-10.8 s of person-a-0 is b-0" in found["copies"].examples[0]


def spans(starts: np.ndarray, names: np.ndarray, length: np.ndarray) -> Spans:
    return Spans("s", names, None, names, start_s=starts, end_s=starts + length)


def test_overlaps_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    columns = [
        (rng.uniform(0, 60, n), rng.choice(list("uvw"), n).astype(object), rng.uniform(0.1, 3, n))
        for n in (80, 60)
    ]
    one, two = (spans(*column) for column in columns)
    assert one.start_s is not None and one.end_s is not None
    assert two.start_s is not None and two.end_s is not None
    expected = sum(
        any(
            one.person[i] == two.person[j]
            and one.start_s[i] < two.end_s[j]
            and two.start_s[j] < one.end_s[i]
            for j in range(len(two))
        )
        for i in range(len(one))
    )
    assert 20 < expected < 80
    assert audit(one, two)["intervals"].number == expected


def test_what_is_not_known_is_said_and_is_not_none(tmp_path: Path, capsys) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"person,recording\np-{name},r-{name}\n")
    paths = [str(tmp_path / f"{name}.csv") for name in "ab"]
    assert main(["audit-split", *paths]) == 0
    printed = capsys.readouterr().out
    for kind, said in {
        "people": "none",
        "recordings": "none",
        **dict.fromkeys(("captures", "days", "intervals", "copies"), "not known"),
    }.items():
        assert any(line.split()[0] == kind and said in line for line in printed.splitlines())


CSV = "person,recording,start,end\n"
OF_CSV: dict[str, tuple[str, str, set[str]]] = {
    "nothing": (f"{CSV}p,r,0,5\n", f"{CSV}q,s,0,5\n", set()),
    "touching": (f"{CSV}p,r,0,5\n", f"{CSV}q,r,5,10\n", {"recordings"}),
    "overlapping": (
        f"{CSV}p,r,0,5\n",
        f"{CSV}q,r,4.9,10\n",
        {"recordings", "captures", "intervals"},
    ),
    "a person": (f"{CSV}p,r,0,5\n", f"{CSV}p,s,0,5\n", {"people"}),
    "a day, by dates": (
        f"{CSV}p,r,2024-05-01T10:00:00,2024-05-01T10:00:05\n",
        f"{CSV}q,s,2024-05-02 01:00:00+02:00,2024-05-02 01:00:05+02:00\n",
        {"days"},
    ),
    "a day, by its column": (
        "person;recording;day\np;r;2024-05-01\n",
        "day\trecording\tperson\n2024-05-01\ts\tq\n",
        {"days"},
    ),
    "a capture": (
        "\ufeffPerson, Recording, Capture\n\np,r,c\n",
        "person,recording,capture,other\nq,s,c,1\n",
        {"captures"},
    ),
}


@pytest.mark.parametrize(("one", "two", "found"), OF_CSV.values(), ids=OF_CSV)
def test_csv_files_are_compared(
    tmp_path: Path, one: str, two: str, found: set[str], capsys
) -> None:
    paths = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path, text in zip(paths, (one, two), strict=True):
        path.write_text(text, encoding="utf-8")
    command = ["audit-split", *map(str, paths), "--json", str(tmp_path / "found.json")]
    assert main(command) == (1 if found else 0)
    told = json.loads((tmp_path / "found.json").read_text())
    assert [one["kind"] for one in told["shared"]] == list(KINDS)
    assert {one["kind"] for one in told["shared"] if one["number"]} == found
    allowed = [word for kind in found for word in ("--may-share", kind)]
    assert main([*command, *allowed]) == 0
    capsys.readouterr()


def test_times_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{CSV}p,r,0,5\np,r2,,\n")
    (tmp_path / "b.csv").write_text(f"{CSV}q,r,1970-01-01T00:00:00,1970-01-01T00:00:05\n")
    (tmp_path / "c.csv").write_text(f"{CSV}q,r,,\nq,r2,0,5\nq,r,1,2\n")
    one, two, three = (read_spans(str(tmp_path / f"{name}.csv")) for name in "abc")
    found = audit(one, two)
    assert found.kinds() == ("recordings",)
    assert found["intervals"].number is found["captures"].number is None
    assert "dates on one side" in found["intervals"].note
    assert audit(one, three)["intervals"].number == 1  # rows without times have none in common


def test_seconds_since_1970_are_compared_with_dates_and_not_with_seconds_since_a_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "start.csv").write_text(f"{CSV}p,r,0,5\n")
    (tmp_path / "unix.csv").write_text(f"{CSV}q,r,1714557600,1714557605\n")
    (tmp_path / "date.csv").write_text(f"{CSV}q,r,2024-05-01T10:00:00,2024-05-01T10:00:05\n")
    start, unix, dated = (read_spans(str(tmp_path / f"{n}.csv")) for n in ("start", "unix", "date"))
    found = audit(start, unix)["intervals"]
    assert (found.number, found.note) == (None, "times are seconds since 1970 on one side only")
    assert audit(unix, dated)["intervals"].number == 1
    assert audit(unix, dated)["days"].number == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [("anna", "Anna"), ("p1", "P01"), ("jo doe", "Jo_ Doe"), ("caf\u00e9", "cafe\u0301")],
)
def test_people_who_are_spelt_differently_are_told(tmp_path: Path, one: str, two: str) -> None:
    for name, person in (("a", one), ("b", two)):
        (tmp_path / f"{name}.csv").write_text(
            f"person,recording\n{person},r-{name}\nsame,{name}x\n", encoding="utf-8"
        )
    found = audit(*(read_spans(str(tmp_path / f"{name}.csv")) for name in "ab"))
    assert found["people"].number == 1
    names = " and ".join(sorted((one, two)))
    assert f"spelt differently and counted as different: {names};" in found["people"].note
    assert found["recordings"].note == ""


def test_a_moment_of_a_named_capture_is_counted_once(tmp_path: Path) -> None:
    pairs = {"capture": ("c", "c"), "recording": ("r", "r"), "device": ("imu", "watch")}
    found = sides(tmp_path / "1", **pairs)["captures"]
    assert (found.number, found.examples) == (1, ("set/c",))
    found = sides(tmp_path / "2", **{**pairs, "capture": ("c", "d")})["captures"]
    assert found.number == 1
    assert found.examples[0].startswith("set/r: 10-10.8 s of imu, 10-10.8 s of watch")


def test_a_folder_is_compared_with_a_csv_file_by_plain_names(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", [meta("a", 0)], 0)
    (tmp_path / "b.csv").write_text(f"{CSV}person-a-0,a-0,10.5,12\n")
    found = audit(read_spans(one), read_spans(str(tmp_path / "b.csv")))
    assert found.kinds() == ("people", "recordings", "captures", "intervals")
    assert "person-a-0 (1 and 1)" in format_audit(found)


WRONG: dict[str, tuple[str, str]] = {
    "": ("", "no column person; its first line names none"),
    "misspelt": ("persn,recording\np,r\n", "no column person.*nearest of them is 'persn'"),
    "no rows": ("person,recording\n", "has no row"),
    "one time": ("person,recording,start\np,r,1\n", "one of the columns start and end"),
    "empty cell": ("person,recording\np,r\n,s\n", "line 3: column person is empty"),
    "cells": ("person,recording\np,r,1\n", "line 2: it has 3 cells"),
    "backwards": (f"{CSV}p,r,5,5\n", "line 2: end '5' is not later than start '5'"),
    "no time": (f"{CSV}p,r,soon,5\n", "line 2: 'soon' is no time"),
    "infinite": (f"{CSV}p,r,0,inf\n", "line 2: 'inf' is no time"),
    "mixed": (f"{CSV}p,r,0,2024-05-01\n", "line 2: start and end are a date and a number"),
    "unlike": (f"{CSV}p,r,0,5\np,r,2024-05-01,2024-05-02\n", "dates in some lines"),
    "twice": ("person,recording,person\np,r,q\n", "two columns are called person"),
    "ms": (f"{CSV}p,r,1714557600000,1714557605000\n", "line 2: .* no number of seconds"),
    "day": ("person,recording,day\np,r,1.5.2024\n", "line 2: '1.5.2024' is no day"),
    "data sets": ("person,recording,dataset\np,r,x\nq,s,\n", "line 3: column dataset is empty"),
    "devices": ("person,recording,device\np,r,x\nq,s,\n", "line 3: column device is empty"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_csv_files_that_are_wrong_are_named_with_the_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"wrong\.csv.*{said}"):
        read_spans(str(path))


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "latin.csv").write_bytes(b"person,recording\nJos\xe9,r\n")
    for place, said in {
        "gone.csv": "no file .*gone.csv",
        "latin.csv": "latin.csv is no UTF-8 text",
        "gone": "no .*gone/index.json",
    }.items():
        with pytest.raises((ValueError, OSError), match=said):
            read_spans(str(tmp_path / place))
    assert main(["audit-split", str(tmp_path / "gone.csv"), "b.csv"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_evaluation_refuses_people_copies_and_their_intervals() -> None:
    def of(**columns: Sequence[object]) -> Spans:
        arrays = {k: np.array(v, object) for k, v in columns.items() if k not in ("at", "samples")}
        start_s = np.array(columns.get("at", [0.0]), np.float64)
        samples = np.array(columns["samples"], np.int64) if "samples" in columns else None
        return Spans("x/", **arrays, start_s=start_s, end_s=start_s + 5, samples=samples)

    refusals: list[tuple[Callable[[str], Spans], str]] = [
        (lambda name: of(person=["p"], recording=[name]), "people"),
        (lambda name: of(person=["p"], recording=["r"], at=[ord(name)]), "intervals"),
        (lambda name: of(person=[name], samples=[1]), "copies"),
    ]
    for make, kind in refusals:
        found = audit(make("a"), make("b"))
        may = ["people"] if kind == "intervals" else []
        with pytest.raises(ValueError, match=rf"^{kind} .* \(--may-share {kind}\)"):
            refuse(found, may)
        refuse(found, [*may, kind])
    refuse(audit(of(person=["a"], recording=["r"]), of(person=["b"], recording=["r"])))


def test_nobody_is_on_both_sides_of_the_built_in_splits() -> None:
    for split in range(20):
        label, test = people_split(split)
        assert len(label) + len(test) == len(PEOPLE)
        names = [np.array([hapt_person(n) for n in side], object) for side in (label, test)]
        found = audit(Spans("label/", names[0]), Spans("test/", names[1]))
        assert found["people"].number == 0
