"""The data card: figures counted apart from it, and what deserves a second look."""

import base64
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from primus_scale.sample import WindowMeta, window_uid
from shards.card.attention import attention
from shards.card.page import write_card
from shards.card.stats import collect_statistics
from shards.card.verbs import count_verbs, narration_verb
from shards.report import (
    DeviceReport,
    IngestReport,
    LagReport,
    RecordingReport,
    SensorReport,
)
from shards.write.writer import WindowShardWriter
from tests.odd_names import ODD_NAMES
from tests.shard_factory import (
    RATE_HZ,
    SAMPLES,
    make_blocks,
    make_windows,
    write_packed,
    write_windows,
)

WINDOW_H = SAMPLES / RATE_HZ / 3600


def quiet(_line: str) -> None:
    pass


def sensor(rate_hz: float = 200.0) -> SensorReport:
    return SensorReport(("acc_x",), "m/s2", 100, 0, 0, 0, 0, 0, rate_hz, 0, 0.0)


def ingest_report() -> IngestReport:
    device = DeviceReport(
        name="imu",
        placement="head",
        nominal_rate_hz=200.0,
        start_s=0.0,
        end_s=60.0,
        median_acc=9.8,
        sensors=(sensor(), sensor(190.0)),
        windows=30,
        refused={"gap": 25, "no video": 5},
    )
    lag = LagReport("imu", 0.4, 0.9, 0.8, 60.0, flagged=True)
    good = RecordingReport("rides", "one", "anna", windows=30, devices=(device,), lag=lag)
    bad = RecordingReport("rides", "two <b>", error="two.mp4 is empty; copy it again")
    unread = tuple(f"<{number}>.txt" for number in range(17))
    return IngestReport("gopro", "rides", {}, (good, bad), unread=unread)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Shards and the report on them; no test changes them."""
    folder = tmp_path_factory.mktemp("shards")
    write_windows(str(folder / "shards"), make_windows(50, frames=5))
    (folder / "shards" / "ingest.json").write_text(json.dumps(asdict(ingest_report())))
    return folder / "shards"


@pytest.fixture(scope="module")
def statistics(folder):
    return collect_statistics([str(folder)], report=quiet)


@pytest.fixture(scope="module")
def card(folder, tmp_path_factory):
    """The figures of a card and the folder with its files."""
    out = tmp_path_factory.mktemp("card")
    return write_card([str(folder)], str(out), report=quiet), out


def test_hours_are_counted_by_what_the_windows_say(statistics):
    windows = make_windows(50, frames=5)
    figures, shown = statistics
    assert figures["hours"] == pytest.approx(50 * WINDOW_H)
    for name in ("placement", "person", "label"):
        found = figures[f"hours_by_{name}"]
        values = [getattr(window.meta, name) or "(none)" for window in windows]
        assert found == {
            value: pytest.approx(values.count(value) * WINDOW_H) for value in set(values)
        }
        assert list(found.values()) == sorted(found.values(), reverse=True)
    aligned = sum(bool(window.frames) for window in windows)
    assert figures["hours_by_modality"]["random"] == {
        "IMU, video and text": pytest.approx(aligned * WINDOW_H),
        "IMU only": pytest.approx((50 - aligned) * WINDOW_H),
    }
    assert figures["recordings"] == 5
    assert len({window.meta.uid for window in shown}) == 12
    assert {window.meta.placement for window in shown} == {"chest", "left wrist"}
    assert all(window.frames for window in shown)  # there were enough with pictures


def test_gravity_and_rotation_are_those_of_the_samples(statistics):
    figures, _ = statistics
    chest = [w.imu.astype(float) for w in make_windows(50) if w.meta.placement == "chest"]
    medians = [np.median(np.sqrt((imu[:3] ** 2).sum(axis=0))) for imu in chest]
    rotation = [np.sqrt((imu[3:] ** 2).sum(axis=0).mean()) for imu in chest]
    assert figures["gravity"]["quantiles"]["chest"][1] == pytest.approx(np.median(medians))
    assert figures["gyroscope"]["quantiles"]["chest"][1] == pytest.approx(np.median(rotation))
    assert sum(figures["gravity"]["counts"]["chest"]) == len(chest)


def test_packed_shards_and_a_sample_of_them(tmp_path):
    write_packed(str(tmp_path), make_blocks(make_windows(64)))
    figures, shown = collect_statistics([str(tmp_path)], most=32, report=quiet)
    assert (figures["windows"], figures["windows_read"]) == (64, 32)
    assert sum(figures["hours_by_placement"].values()) == pytest.approx(64 * WINDOW_H)
    assert figures["hours_by_modality"]["random"].keys() == {"IMU, video and text", "IMU only"}
    assert figures["ingest"] is None
    assert set(figures["hours_by_label"]) == {"lie", "sit", "(none)"}
    assert len(shown) == 12


def test_windows_without_acceleration_have_no_gravity(tmp_path):
    with WindowShardWriter(
        str(tmp_path), rate_hz=200.0, channels=("emg_1", "emg_2"), units=("V", "V")
    ) as writer:
        for window in make_windows(3, frames=0):
            writer.write(replace(window, imu=window.imu[:2]))
    figures = write_card([str(tmp_path)], report=quiet)
    assert figures["gravity"] is None
    assert figures["gyroscope"] is None
    assert "emg_1 (V)" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_page_shows_what_ingestion_found_and_escapes_names(card, statistics):
    figures, out = card
    page = (out / "card.html").read_text(encoding="utf-8")
    assert json.loads((out / "card.json").read_text(encoding="utf-8")) == (
        json.loads(json.dumps(figures))
    )
    assert "two &lt;b&gt;" in page
    assert "two <b>" not in page
    assert "38 %" in page  # 30 refused of 80
    for name in ("two.mp4 is empty; copy it again", "&lt;0&gt;.txt", "&lt;14&gt;.txt"):
        assert f'<td class="text">{name}</td>' in page
    assert "&lt;15&gt;.txt" not in page
    assert "and 2 more, in card.json" in page
    pictures = sum(min(len(w.frames), 4) for w in statistics[1])
    assert page.count("data:image/jpeg") == pictures
    assert not re.search(r'(src|href)="(?!data:)', page)  # needs no other file


def test_any_name_comes_out_as_it_is(tmp_path):
    windows = [
        replace(
            window,
            meta=replace(
                window.meta,
                label=name,
                placement=name,
                person=name,
                device=name,
                dataset=name,
                recording=name,
                texts=(name,),
            ),
        )
        for name, window in zip(ODD_NAMES, make_windows(len(ODD_NAMES)), strict=True)
    ]
    write_windows(str(tmp_path), windows)
    devices = tuple(replace(ingest_report().recordings[0].devices[0], name=n) for n in ODD_NAMES)
    recordings = [
        RecordingReport(name, name, name, windows=1, devices=devices, notes=(name,))
        for name in ODD_NAMES
    ]
    recordings += [RecordingReport(name, name, error=name) for name in ODD_NAMES]
    found = IngestReport("folder", "$src", {}, tuple(recordings))
    (tmp_path / "ingest.json").write_text(json.dumps(asdict(found)))
    write_card([str(tmp_path)], report=quiet)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page
    for data in re.findall(r"svg\+xml;base64,([^\"]+)", page):
        ElementTree.fromstring(base64.b64decode(data))


@pytest.mark.parametrize("names", [("$a", "_b", "歩"), ("a$b$", "\\c", "<d>")])
def test_channels_and_units_of_any_name(tmp_path, names):
    with WindowShardWriter(str(tmp_path), rate_hz=200.0, channels=names, units=names) as writer:
        for window in make_windows(3, frames=0):
            writer.write(replace(window, imu=window.imu[:3]))
    write_card([str(tmp_path)], report=quiet)
    assert "A dozen windows" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_figures_are_kept_where_the_page_cannot_be_written(tmp_path):
    folder = tmp_path / "shards"
    write_windows(str(folder), make_windows(3))
    (tmp_path / "card" / "card.html").mkdir(parents=True)
    with pytest.raises(OSError, match="card"):
        write_card([str(folder)], str(tmp_path / "card"), report=quiet)
    figures = json.loads((tmp_path / "card" / "card.json").read_text(encoding="utf-8"))
    assert figures["windows"] == 3


def test_a_picture_that_cannot_be_decoded_is_named_and_the_rest_is_shown(tmp_path):
    windows = make_windows(4, frames=2)
    windows[0] = replace(windows[0], frames=(windows[0].frames[0], windows[0].frames[1][:100]))
    write_windows(str(tmp_path), windows)
    write_card([str(tmp_path)], report=quiet)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 5
    assert page.count("cannot be decoded") == 1


def test_equal_shards_give_equal_cards(folder, tmp_path):
    source = tmp_path / "shards"
    write_windows(str(source), make_windows(3, frames=2))
    shutil.copy(folder / "ingest.json", source)
    for name in ("one", "other"):
        write_card([str(source)], str(tmp_path / name), report=quiet)
    for name in ("card.html", "card.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_attention_names_what_stands_out(statistics):
    text = " ".join(attention(statistics[0]))
    assert "1 of 2 recordings could not be read" in text
    assert "38 % of the planned windows were refused, most for: gap (25)" in text
    assert "1 of 1 recordings with video are out of step" in text
    assert "imu: 1 of 2 sensors are over 1 % off" in text  # 190 of 200 Hz


def test_attention_is_empty_where_nothing_stands_out(tmp_path):
    windows = []
    for number, window in enumerate(make_windows(60, seed=3)):
        meta = replace(window.meta, person=f"person-{number % 4}", session="worn")
        still = np.zeros_like(window.imu)
        still[1] = 9.8 + 0.01 * np.sin(np.arange(SAMPLES) + number)
        windows.append(replace(window, imu=still, meta=meta))
    write_windows(str(tmp_path), windows)
    assert attention(collect_statistics([str(tmp_path)], report=quiet)[0]) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"person": "anna"}, r"All windows are of one person \(anna\)"),
        ({"texts": ("C waits.",)}, r"Only 5 % of the narrations are distinct"),
    ],
)
def test_attention_to_people_and_texts(tmp_path, change, sentence):
    windows = [replace(w, meta=replace(w.meta, **change)) for w in make_windows(20)]
    write_windows(str(tmp_path), windows)
    found = attention(collect_statistics([str(tmp_path)], report=quiet)[0])
    assert any(re.search(sentence, line) for line in found)


def sessions_of(folder, windows, **options):
    write_windows(str(folder), windows)
    figures, _ = collect_statistics([str(folder)], report=quiet, **options)
    return figures["sessions"], " ".join(attention(figures))


def test_sessions_are_counted_for_each_device(tmp_path):
    windows = make_windows(75)  # eight recordings, each at two placements
    figures, told = sessions_of(tmp_path / "a", windows)
    assert figures["count"] == 16
    assert figures["windows"] == {"median": 5.0, "shortest": 2}
    assert "Half of the 16 sessions have at most 5 windows, fewer than the 30" in told
    worn = [replace(w, meta=replace(w.meta, session=w.meta.placement)) for w in windows]
    figures, told = sessions_of(tmp_path / "b", worn)
    assert figures["count"] == 2
    assert figures["windows"] == {"median": 37.5, "shortest": 37}
    assert "have at most" not in told


def test_sessions_of_one_label_each_are_told_of(tmp_path):
    """Unless they are narrated, or have no labels."""
    bare = [replace(w, frames=(), meta=replace(w.meta, texts=())) for w in make_windows(40)]
    figures, told = sessions_of(tmp_path / "a", bare)
    assert (figures["labelled"], figures["one_label"]) == (8, 0)
    alike = [replace(w, meta=replace(w.meta, label=w.meta.placement)) for w in bare]
    figures, told = sessions_of(tmp_path / "b", alike)
    assert (figures["labelled"], figures["one_label"]) == (8, 8)
    assert "8 of 8 sessions with labels hold one label only" in told
    assert "--session-by person" in told
    worn = [replace(w, meta=replace(w.meta, session="worn", placement="chest")) for w in alike]
    figures, told = sessions_of(tmp_path / "c", worn)
    assert (figures["labelled"], figures["one_label"]) == (1, 0)
    narrated = [replace(w, meta=replace(w.meta, texts=("C waits.",))) for w in alike]
    figures, told = sessions_of(tmp_path / "d", narrated)
    assert (figures["labelled"], figures["one_label"]) == (0, 0)
    assert "one label only" not in told


def test_sessions_of_packed_shards_are_those_of_the_index_also_in_a_sample(tmp_path):
    windows = [replace(w, meta=replace(w.meta, session="worn")) for w in make_windows(96)]
    windows.sort(key=lambda w: w.meta.placement)
    for sessions in (True, False):
        url = str(tmp_path / str(sessions))
        write_packed(url, make_blocks(windows), sessions=sessions)
        figures, _ = collect_statistics([url], most=32, report=quiet)
        assert figures["windows_read"] == 32
        assert figures["sessions"]["count"] == 2
        assert figures["sessions"]["windows"] == {"median": 48.0, "shortest": 48}, sessions


def test_acceleration_in_g_is_noticed(tmp_path):
    windows = [
        replace(w, imu=(w.imu / np.float32(9.8)).astype(np.float32)) for w in make_windows(20)
    ]
    write_windows(str(tmp_path), windows)
    found = attention(collect_statistics([str(tmp_path)], report=quiet)[0])
    assert any("at chest" in line and "check units" in line for line in found)


def test_damaged_report_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "ingest.json").write_text("{")
    with pytest.raises(ValueError, match=r"ingest\.json is damaged"):
        collect_statistics([str(tmp_path / "damaged")], report=quiet)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("A person picks up the cup.", "picks"),
        ("C is slowly walking backwards", "walking"),
        ("picks up the cup", "picks"),
        ("The man then starts to run", "run"),
        ("", None),
        ("The person.", None),
    ],
)
def test_verbs(text, verb):
    assert narration_verb(text) == verb


def test_forms_of_a_verb_are_counted_together():
    texts = ["A person walks.", "He walks on", "C is walking", "She runs", "They are running"]
    assert count_verbs(texts) == {"walks": 3, "running": 2}


def test_uid_of_shown_windows_is_not_lost(tmp_path):
    meta = WindowMeta(
        uid=window_uid("d", "ü", "imu", 0.0),
        dataset="d",
        recording="ü <i>",
        device="imu",
        placement="chest",
        person="",
        session="ü",
        start_s=0.0,
    )
    write_windows(str(tmp_path), [replace(make_windows(1)[0], meta=meta)])
    write_card([str(tmp_path)], report=quiet)
    assert "ü &lt;i&gt;" in (tmp_path / "card.html").read_text(encoding="utf-8")
