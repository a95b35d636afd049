"""Shard folders divided by people and other units: who is where, and that nothing is lost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primus_scale.cli import main
from primus_scale.data.index import ShardIndex, read_index
from primus_scale.data.reader import load_windows
from primus_scale.distributed import storage_lock
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.sample import Window, WindowMeta
from primus_scale.splits.audit import audit
from primus_scale.splits.counts import SplitCounts
from primus_scale.splits.sides import Unit, draw_sides, read_sides, units_of
from primus_scale.splits.spans import read_spans
from shards.split.split import split
from shards.write.verify import verify
from tests.shard_factory import TEACHERS, make_blocks, make_windows, write_packed, write_windows

WINDOWS = 120  # of six people, and of three classes that all of them have


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for who uses an output."""
    for name in ("ENDING_S", "SETTLE_S", "LOOK_S"):
        monkeypatch.setattr(storage_lock, name, 0.05)


def quiet(line: str) -> None:
    """Where progress goes."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("source"))
    write_windows(url, make_windows(WINDOWS), provenance={"datasets": {"random": "made up"}})
    return url


def records(index: ShardIndex) -> Counter[tuple[int, int]]:
    return Counter((r.length, r.crc32) for shard in index.shards for r in shard.records)


def people(url: str) -> set[str]:
    return {meta.person for meta in load_windows(url, pictures=False).metas}


def test_records_of_window_shards_are_copied_and_none_is_lost(source: str, tmp_path: Path) -> None:
    split([source], str(tmp_path), test=0.3, report=quiet)
    both = [read_index(str(tmp_path / side)) for side in ("label", "test")]
    assert records(both[0]) + records(both[1]) == records(read_index(source))
    for side in ("label", "test"):
        assert verify(str(tmp_path / side)).ok
    assert len(people(str(tmp_path / "test"))) == 2
    assert not people(str(tmp_path / "label")) & people(str(tmp_path / "test"))
    found = audit(*(read_spans(str(tmp_path / side)) for side in ("label", "test")))
    assert found.kinds() == ()
    assert both[0].provenance["datasets"] == {"random": "made up"}
    assert both[1].provenance["people"] == {"random": sorted(people(str(tmp_path / "test")))}
    order = [meta.uid for meta in load_windows(source).metas]
    written = [meta.uid for meta in load_windows(str(tmp_path / "test")).metas]
    assert written == [uid for uid in order if uid in set(written)]


@pytest.mark.parametrize("sessions", [False, True])
def test_blocks_of_packed_shards_are_divided_by_rows(tmp_path: Path, sessions: bool) -> None:
    labels = ("walk", "lie", "sit")
    blocks = make_blocks(make_windows(WINDOWS), block=16, labels=labels)
    write_packed(str(tmp_path / "one"), blocks, labels=labels, sessions=sessions)
    others = make_windows(40, seed=1, dataset="other")
    video = {"video": TEACHERS["video"]}
    labels = ("sit", "walk", "lie")  # ids of another order
    write_packed(
        str(tmp_path / "two"),
        make_blocks(others, labels=labels, teachers=video),
        labels=labels,
        teachers=video,
        sessions=sessions,
    )
    sources = [str(tmp_path / "one"), str(tmp_path / "two")]
    split(sources, str(tmp_path / "out"), test=0.4, seed=3, report=quiet)
    whole = load_windows(sources)
    parts = [load_windows(str(tmp_path / "out" / side)) for side in ("label", "test")]
    rows = {meta.uid: row for row, meta in enumerate(whole.metas)}
    assert sorted(rows) == sorted(meta.uid for part in parts for meta in part.metas)
    for side, part in zip(("label", "test"), parts, strict=True):
        report = verify(str(tmp_path / "out" / side))
        assert report.ok, str(report)
        own = [rows[meta.uid] for meta in part.metas]
        assert part.metas == [whole.metas[row] for row in own]
        assert np.array_equal(part.imu, whole.imu[own])
        names = [whole.labels[i] if i >= 0 else None for i in whole.label[own]]
        assert [part.labels[i] if i >= 0 else None for i in part.label] == names
        for name, values in part.batch.embeddings.items():
            assert np.array_equal(values, whole.batch.embeddings[name][own])
            assert np.array_equal(part.batch.present[name], whole.batch.present[name][own])
        assert part.shard_set.by_sessions == sessions


def test_the_same_people_are_drawn_whatever_the_order_of_windows() -> None:
    units = units_of([window.meta for window in make_windows(400)], "person")
    first = draw_sides(units, by="person", test=0.3, seed=1)
    assert draw_sides(reversed(units), by="person", test=0.3, seed=1) == first
    assert Counter(first.values()) == {"label": 14, "test": 6}
    tested = Counter(
        unit
        for seed in range(300)
        for unit, side in draw_sides(units, by="person", test=0.3, seed=seed).items()
        if side == "test"
    )
    assert len(tested) == 20
    assert 60 < min(tested.values()) <= max(tested.values()) < 125  # 90 expected; 4 deviations


def test_a_small_share_is_one_unit_and_a_large_one_leaves_one() -> None:
    units = [Unit("d", str(number)) for number in range(5)]
    for share, expected in ((0.01, 1), (0.5, 2), (0.99, 4)):
        sides = draw_sides(units, by="person", test=share, seed=0)
        assert list(sides.values()).count("test") == expected
    for share in (0.0, 1.0, -0.3, 30.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            draw_sides(units, by="person", test=share, seed=0)


@pytest.mark.parametrize("by", ["placement", "session", "recording", "dataset"])
def test_other_units_are_on_one_side_each(tmp_path: Path, by: str) -> None:
    for name in ("x", "y"):
        write_windows(str(tmp_path / name), make_windows(60, dataset=name))
    lines: list[str] = []
    sources = [str(tmp_path / "x"), str(tmp_path / "y")]
    split(sources, str(tmp_path / "out"), by=by, test=0.3, report=lines.append)
    sides = [
        {(m.dataset if by != "placement" else "", getattr(m, by)) for m in load_windows(url).metas}
        for url in (str(tmp_path / "out/label"), str(tmp_path / "out/test"))
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    shared = any("on both sides, so" in line for line in lines)
    assert shared == (by != "dataset")


def test_command_prints_a_table_in_which_every_window_counts(
    source: str, tmp_path: Path, capsys
) -> None:
    assert main(["shards", "split", "--by", "person", "--test", "0.3", source, str(tmp_path)]) == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        words = line.replace("(no label)", "none").split()
        if len(words) == 3 and words[1].isdigit():
            rows[words[0]] = [int(word) for word in words[1:]]
    counts = {row: sum(cells) for row, cells in rows.items()}
    labels = Counter(window.meta.label or "none" for window in make_windows(WINDOWS))
    assert counts == {"people": 6, "windows": WINDOWS, **labels}
    assert rows["people"] == [4, 2]
    assert rows["windows"] == [len(load_windows(str(tmp_path / s))) for s in ("label", "test")]

    again, names = str(tmp_path / "again"), str(tmp_path / "split.csv")
    assert main(["shards", "split", source, again, "--names", names]) == 0
    for side in ("label", "test"):
        assert people(f"{again}/{side}") == people(str(tmp_path / side))


@pytest.mark.parametrize("packed", [False, True])
def test_windows_of_unused_units_are_left_out_and_counted(
    source: str, tmp_path: Path, capsys, packed: bool
) -> None:
    if packed:
        source = str(tmp_path / "packed")
        write_packed(source, make_blocks(make_windows(WINDOWS), block=50))
    names = tmp_path / "names.csv"
    rows = [f"person-{n},{('label', 'test', 'unused')[n % 3]}" for n in range(6)]
    names.write_text("\n".join(["person,side", *rows]))
    out = str(tmp_path / "out")
    assert main(["shards", "split", source, out, "--names", str(names)]) == 0
    assert people(f"{out}/label") == {"person-0", "person-3"}
    assert people(f"{out}/test") == {"person-1", "person-4"}
    assert "windows                 40            40            40" in capsys.readouterr().out


def metas_of(*people_of: tuple[str, str]) -> list[WindowMeta]:
    first = make_windows(1)[0].meta
    return [replace(first, dataset=d, person=p) for d, p in people_of]


def test_names_of_several_data_sets(tmp_path: Path) -> None:
    metas = metas_of(("x", "p1"), ("y", "p1"), ("x", "p2"), ("hapt", "hapt-1"), ("uci", "hapt-1"))
    path = tmp_path / "names.csv"
    path.write_text("dataset,person,side\nx,p1,label\ny,p1,test\n,p2,label\nuci,hapt-1,test\n")
    by, sides = read_sides(str(path), metas, None)
    assert by == "person"
    assert {str(unit): side for unit, side in sides.items()} == {
        "x/p1": "label",
        "y/p1": "test",
        "x/p2": "label",
        "hapt/hapt-1": "test",
    }


WRONG: dict[str, tuple[str, str]] = {
    "no unit": ("name,side\na,label\n", "must name side and one of person, placement"),
    "no side": ("person\np1\n", "no column side"),
    "another unit": ("placement,side\nchest,label\n", "--by says person"),
    "unknown side": ("person,side\np1,train\n", "line 2: side is 'train', and none of label, test"),
    "unknown name": ("person,side\np1,label\np5x,test\n", "line 3: no window is of person 'p5x'"),
    "nearest": ("person,side\np1,label\np33,test\n", "the nearest person is 'p3'"),
    "unknown set": ("dataset,person,side\nz,p1,label\n", "'p1' of data set 'z'"),
    "twice": ("person,side\np1,label\np1,test\n", "line 3: person d/p1 is on side label already"),
    "left out": ("person,side\np1,label\np2,test\n", "gives no side to person d/p3; add a line"),
    "one side": ("person,side\np1,label\np2,label\np3,unused\n", "side test to no person"),
    "one used": ("person,side\np1,label\np2,unused\np3,unused\n", r"one person only \(d/p1\)"),
    "empty": ("person,side\n,label\n", "line 2: column person is empty"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_files_of_names_that_are_wrong_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "names.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_sides(str(path), metas_of(("d", "p1"), ("d", "p2"), ("d", "p3")), "person")


def with_labels(each: Sequence[tuple[str, str | None]]) -> list[Window]:
    """A window for each pair of person and label."""
    windows = make_windows(len(each), frames=0)
    return [
        replace(window, meta=replace(window.meta, person=person, label=label))
        for window, (person, label) in zip(windows, each, strict=True)
    ]


def test_a_class_for_the_test_alone_is_refused_and_one_for_labels_alone_is_told(
    tmp_path: Path,
) -> None:
    each = [(person, label) for person in "abc" for label in ("sit", "walk", None)]
    write_windows(str(tmp_path / "src"), with_labels([*each, ("b", "run")]))
    for side, other in (("test", "label"), ("label", "test")):
        names, lines = tmp_path / f"{side}.csv", list[str]()
        names.write_text(f"person,side\nb,{side}\na,{other}\nc,{other}\n")
        out = str(tmp_path / side)

        def divide(out: str = out, names: Path = names, lines: list[str] = lines) -> None:
            split([str(tmp_path / "src")], out, names=str(names), report=lines.append)

        if side == "label":
            divide()
            assert "note: no window for the test is of run: such classes are not tested" in lines
        else:
            with pytest.raises(ValueError, match=r"class 'run' .* windows of it are random/b: cha"):
                divide()
            assert not (tmp_path / side).exists()


def test_what_cannot_be_divided_is_refused(tmp_path: Path, source: str) -> None:
    write_windows(str(tmp_path / "one"), make_windows(20))
    with pytest.raises(ValueError, match=r"of one person only \(random/person-0\).*or split by"):
        split([str(tmp_path / "one")], str(tmp_path / "out"), test=0.5, report=quiet)
    with pytest.raises(FileNotFoundError, match=r"no .*gone/index\.json"):
        split([str(tmp_path / "gone")], str(tmp_path / "out"), test=0.5, report=quiet)
    with pytest.raises(ValueError, match="hold the same windows"):
        split([source, source], str(tmp_path / "out"), test=0.5, report=quiet)
    with pytest.raises(ValueError, match="would be overwritten"):
        split([source], source, test=0.5, report=quiet)
    assert not (tmp_path / "out").exists()


def test_a_split_that_fails_leaves_no_index(tmp_path: Path) -> None:
    """The last picture is damaged, which is read only when its record is copied."""
    index = write_windows(str(tmp_path / "src"), make_windows(60))
    path = tmp_path / "src" / index.shards[0].name
    data = bytearray(path.read_bytes())
    last = [record for record in index.shards[0].records if record.windows][-2]
    data[last.offset + 600] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not what was written"):
        split([str(tmp_path / "src")], str(tmp_path / "out"), test=0.5, report=quiet)
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not left - {"run.lock"}


def test_an_output_in_use_or_with_shards_is_refused_unless_asked(
    tmp_path: Path, source: str, capsys
) -> None:
    out = str(tmp_path / "out")
    command = ["shards", "split", source, out, "--test", "0.5"]
    assert main(command) == 0
    before = (tmp_path / "out/label/index.json").read_bytes()
    assert main([*command, "--seed", "1"]) == 1
    assert "already holds shards" in capsys.readouterr().err
    assert (tmp_path / "out/label/index.json").read_bytes() == before
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert (tmp_path / "out/label/index.json").read_bytes() != before
    memory = "memory://split-in-use/out"
    with locked_folder(memory, instead="x"), pytest.raises(OSError, match=f"{memory} is in use by"):
        split([source], memory, test=0.5, report=quiet)


def test_object_storage_is_read_and_written(source: str) -> None:
    url = "memory://split/task"
    split([source], url, test=0.3, report=quiet)
    split([f"{url}/label", f"{url}/test"], f"{url}/again", names=f"{url}/split.csv", report=quiet)
    for side in ("label", "test"):
        one, two = (read_index(f"{place}/{side}") for place in (url, f"{url}/again"))
        assert one.shards == two.shards


def test_people_and_classes_that_are_spelt_differently_are_told() -> None:
    windows = [
        replace(window.meta, person=person, label=label)
        for window, (person, label) in zip(
            make_windows(4),
            [("anna", "sit"), ("Anna", "Sit"), ("ben", "sit"), ("Ben ", "Sit")],
            strict=True,
        )
    ]
    units = units_of(windows, "person")
    sides = {unit: "test" if unit.name in ("Anna", "Ben ", "ben") else "label" for unit in units}
    said = [*SplitCounts(windows, "person", sides).warnings()]
    assert [one.partition(" are spelt")[0] for one in said] == [
        "random/Anna and random/anna",  # both sides; Ben is on one
        "Sit and sit",
    ]
