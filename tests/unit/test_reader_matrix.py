from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.readers import create_reader
from shards.recording import Recording
from shards.settings import SensorLimits
from shards.signal.condition import condition
from tests.reading import find_ref, read_sensor, sensor_of, spans

RNG = np.random.default_rng(11)


class Set(NamedTuple):
    """A data set whose files are matrices: where a file lies, and how its lines are written."""

    reader: str
    path: str
    name: str  # of the recording
    columns: int
    label: int
    separator: str


PAMAP2 = Set("pamap2", "PAMAP2_Dataset/Protocol/subject101.dat", "subject101-protocol", 54, 1, " ")
MHEALTH = Set("mhealth", "MHEALTHDATASET/mHealth_subject7.log", "subject07", 24, 23, "\t")
OPPORTUNITY = Set(
    "opportunity", "OpportunityUCIDataset/dataset/S2-Drill.dat", "S2-Drill", 250, 243, " "
)
SETS = (PAMAP2, MHEALTH, OPPORTUNITY)
each_set = pytest.mark.parametrize("data_set", SETS, ids=[s.reader for s in SETS])


def write(root: Path, data_set: Set, values: np.ndarray, path: str | None = None) -> Path:
    file = root / (path or data_set.path)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [data_set.separator.join(map("{:.9g}".format, row)) for row in values.tolist()]
    file.write_text("\n".join(lines).replace("nan", "NaN") + "\n")
    return file


def rows_of(data_set: Set, codes: Sequence[int]) -> np.ndarray:
    """As many rows, each number in them another; times of PAMAP2 (s) and Opportunity (ms)."""
    rows = np.round(RNG.normal(0, 100, (len(codes), data_set.columns)), 4)
    rows[:, data_set.label] = codes
    if data_set is PAMAP2:
        rows[:, 0] = 8.38 + np.arange(len(codes)) / 100
    if data_set is OPPORTUNITY:
        rows[:, 0] = np.rint(np.arange(len(codes)) * 1000 / 30)
    return rows


def opened(root: Path, data_set: Set, check: Callable[[Recording], None] | None = None) -> None:
    reader = create_reader(data_set.reader, str(root))
    with reader.open(find_ref(reader, data_set.name)) as recording:
        if check:
            check(recording)


def check_values(recording: Recording, device: str, time_s: np.ndarray, *xyz: np.ndarray) -> None:
    sensors = next(d for d in recording.devices if d.name == device).sensors
    assert len(sensors) == len(xyz)
    for sensor, channels, expected in zip(sensors, (CHANNELS[:3], CHANNELS[3:]), xyz, strict=False):
        assert sensor.channels == channels
        found_s, found = read_sensor(sensor)
        np.testing.assert_allclose(found_s, time_s, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(found, expected)


def test_pamap2(tmp_path: Path) -> None:
    values = rows_of(PAMAP2, [0] * 10 + [4] * 20 + [24] * 30 + [0] * 5)
    values[12, 2:] = np.nan  # all radios failed
    values[14:17, 3:20] = np.nan  # the hand's radio
    write(tmp_path, PAMAP2, values)
    time_s = values[:, 0]

    def check(recording: Recording) -> None:
        check_values(recording, "hand", time_s, values[:, 4:7], values[:, 10:13])
        check_values(recording, "chest", time_s, values[:, 21:24], values[:, 27:30])
        check_values(recording, "ankle", time_s, values[:, 38:41], values[:, 44:47])
        assert [(d.name, d.placement, d.nominal_rate_hz) for d in recording.devices] == [
            ("hand", "wrist", 100.0),
            ("chest", "chest", 100.0),
            ("ankle", "ankle", 100.0),
        ]
        acc, gyr = recording.devices[0].sensors
        assert (acc.unit, gyr.unit, gyr.limit) == ("m/s2", "rad/s", None)
        assert acc.limit == pytest.approx(16 * 9.80665)
        assert (recording.dataset, recording.person) == ("pamap2", "pamap2-101")
        assert spans(recording) == [(8.48, 8.67, "walking"), (8.68, 8.97, "rope jumping")]
        assert recording.notes == ()

    opened(tmp_path, PAMAP2, check)


def test_pamap2_rows_lost_by_the_radio_are_counted_as_invalid(tmp_path: Path) -> None:
    values = rows_of(PAMAP2, [4] * 300)
    values[100:120, 10:13] = np.nan
    write(tmp_path, PAMAP2, values)

    def check(recording: Recording) -> None:
        signal = condition(
            recording.devices[0],
            channels=CHANNELS,
            units=UNITS,
            rate_hz=50.0,
            limits=SensorLimits(max_rotation=1e3),  # the values of the test's rows are counters
        )
        acc, gyr = signal.sensors
        assert (acc.samples, acc.invalid, gyr.samples, gyr.invalid) == (300, 0, 300, 20)
        assert [gap.invalid for gap in signal.gaps] == [True]
        assert len(signal.segments) == 2

    opened(tmp_path, PAMAP2, check)


def test_pamap2_optional_activities_are_recordings_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, PAMAP2, rows_of(PAMAP2, [1] * 5))
    optional = PAMAP2.path.replace("Protocol", "Optional")
    write(
        tmp_path, PAMAP2, rows_of(PAMAP2, [9, 9, 10, 10, 11, 11, 18, 18, 19, 19, 20, 20]), optional
    )
    reader = create_reader("pamap2", str(tmp_path))
    assert [ref.name for ref in reader.recordings()] == ["subject101-optional", PAMAP2.name]
    with reader.open(find_ref(reader, "subject101-optional")) as recording:
        assert [span.label for span in recording.labels] == [
            "watching tv",
            "working at a computer",
            "driving",
            "folding laundry",
            "cleaning the house",
            "playing soccer",
        ]
        assert recording.person == "pamap2-101"


def test_pamap2_recordings_are_named_by_folder_wherever_the_source_begins(tmp_path: Path) -> None:
    root = tmp_path / "PAMAP2_Dataset"
    for folder in ("Protocol", "Optional", "Meine Daten"):
        write(root, PAMAP2, rows_of(PAMAP2, [1] * 5), f"{folder}/subject101.dat")
    (root / "subject102.dat").write_bytes((root / "Protocol" / "subject101.dat").read_bytes())

    def names(source: Path) -> list[tuple[str, str]]:
        refs = create_reader("pamap2", str(source)).recordings()
        return [(ref.name, ref.files[0]) for ref in refs]

    assert names(root) == [
        ("subject101-meine daten", "Meine Daten/subject101.dat"),
        ("subject101-optional", "Optional/subject101.dat"),
        ("subject101-protocol", "Protocol/subject101.dat"),
        ("subject102-pamap2_dataset", "subject102.dat"),
    ]
    for folder in ("Protocol", "Optional", "Meine Daten"):
        for source in (root / folder, root / folder / "subject101.dat"):
            assert names(source) == [(f"subject101-{folder.lower()}", "subject101.dat")]


def test_mhealth(tmp_path: Path) -> None:
    values = rows_of(MHEALTH, [0] * 50 + [1] * 100 + [0] * 10 + [12] * 40)
    write(tmp_path, MHEALTH, values)
    time_s = 0.02 * np.arange(200)

    def check(recording: Recording) -> None:
        check_values(recording, "chest", time_s, values[:, 0:3])
        check_values(recording, "ankle-left", time_s, values[:, 5:8], values[:, 8:11])
        check_values(recording, "wrist-right", time_s, values[:, 14:17], values[:, 17:20])
        placed = [d.placement for d in recording.devices]
        assert placed == ["chest", "left ankle", "right wrist"]
        assert {d.nominal_rate_hz for d in recording.devices} == {50.0}
        assert [s.unit for s in recording.devices[1].sensors] == ["m/s2", "deg/s"]
        assert spans(recording) == [(1.0, 2.98, "standing"), (3.2, 3.98, "jumping")]
        assert recording.person == "mhealth-7"
        assert recording.sync == "no times in the file: rows taken to be 20 ms apart"
        assert recording.notes == ()

    opened(tmp_path, MHEALTH, check)


def test_mhealth_degrees_become_radians_and_the_chest_has_no_gyroscope(tmp_path: Path) -> None:
    values = rows_of(MHEALTH, [4] * 200)
    values[:, 8:11] = (90.0, -45.0, 180.0)
    write(tmp_path, MHEALTH, values)

    def check(recording: Recording) -> None:
        chest, ankle, _ = recording.devices
        signal = condition(ankle, channels=CHANNELS, units=UNITS, rate_hz=50.0)
        expected = np.array([[0.5], [-0.25], [1.0]]) * 3.14159265
        np.testing.assert_allclose(
            signal.segments[0].values[3:, 50:150], expected + np.zeros(100), rtol=1e-5
        )
        assert (
            condition(chest, channels=CHANNELS, units=UNITS, rate_hz=50.0).missing == CHANNELS[3:]
        )
        acc = condition(chest, channels=CHANNELS[:3], units=UNITS[:3], rate_hz=50.0)
        assert acc.segments[0].values.shape == (3, 200)

    opened(tmp_path, MHEALTH, check)


def test_mhealth_says_where_the_gyroscope_is_too_quiet_for_its_unit(tmp_path: Path) -> None:
    values = rows_of(MHEALTH, [4] * 50)
    values[:, 17:20] = np.clip(values[:, 17:20], -1, 1)
    values[3, 18] = -1.25
    write(tmp_path, MHEALTH, values)

    def check(recording: Recording) -> None:
        (note,) = recording.notes
        assert note.startswith("gyroscope of wrist-right stays within 1.25 deg/s, too little")

    opened(tmp_path, MHEALTH, check)


def test_opportunity(tmp_path: Path) -> None:
    values = rows_of(OPPORTUNITY, [1] * 30 + [0] * 15 + [2] * 30 + [4] * 30 + [5] * 16)
    values[7, 1:134] = np.nan
    write(tmp_path, OPPORTUNITY, values)
    time_s = np.rint(np.arange(121) * 1000 / 30) / 1000

    def columns(first: int) -> np.ndarray:
        """Three columns by their number in column_names.txt, which counts from 1."""
        return values[:, first - 1 : first + 2]

    def check(recording: Recording) -> None:
        units = ("back", "upper-arm-right", "forearm-right", "upper-arm-left", "forearm-left")
        for device, first in zip(units, (38, 51, 64, 77, 90), strict=True):
            check_values(recording, device, time_s, columns(first), columns(first + 3))
        assert len(recording.devices) == 17
        for device, first in (
            ("acc-knee-right-upper", 2),
            ("acc-hip", 5),
            ("acc-upper-arm-left-upper", 8),
            ("acc-upper-arm-right-lower", 11),
            ("acc-hand-left", 14),
            ("acc-back", 17),
            ("acc-knee-right-lower", 20),
            ("acc-wrist-right", 23),
            ("acc-upper-arm-right-upper", 26),
            ("acc-upper-arm-left-lower", 29),
            ("acc-wrist-left", 32),
            ("acc-hand-right", 35),
        ):
            check_values(recording, device, time_s, columns(first))
        acc, gyr = recording.devices[0].sensors
        assert (acc.unit, gyr.unit, acc.limit) == ("mg", "mrad/s", None)
        assert recording.person == "opportunity-2"
        assert spans(recording) == [
            (0.0, 0.967, "standing"),
            (1.5, 2.467, "walking"),
            (2.5, 3.467, "sitting"),
            (3.5, 4.0, "lying"),
        ]
        assert recording.notes == (
            "gyroscopes taken to be in mrad/s: column_names.txt gives no unit",
        )

    opened(tmp_path, OPPORTUNITY, check)


def test_opportunity_milli_units_become_si(tmp_path: Path) -> None:
    values = rows_of(OPPORTUNITY, [1] * 90)
    values[:, 37:43] = (1000, -500, 250, 1000, -500, 250)
    write(tmp_path, OPPORTUNITY, values)

    def check(recording: Recording) -> None:
        signal = condition(recording.devices[0], channels=CHANNELS, units=UNITS, rate_hz=50.0)
        expected = np.array([9.80665, -4.903325, 2.4516625, 1.0, -0.5, 0.25])
        middle = signal.segments[0].values[:, 50:100]
        np.testing.assert_allclose(middle, expected[:, None] + np.zeros(50), rtol=1e-5)

    opened(tmp_path, OPPORTUNITY, check)


def test_sensors_that_failed_for_a_whole_recording_are_left_out_and_noted(tmp_path: Path) -> None:
    values = rows_of(OPPORTUNITY, [1] * 40)
    values[:, 1:4] = np.nan  # RKN^
    values[1:, 41] = np.nan  # one axis of the back's gyroscope, but for one row
    write(tmp_path, OPPORTUNITY, values)

    def check(recording: Recording) -> None:
        assert len(recording.devices) == 16
        assert "acc-knee-right-upper" not in [d.name for d in recording.devices]
        assert len(recording.devices[0].sensors) == 1
        assert recording.notes[:2] == (
            "gyroscope of back left out: it has no values",
            "accelerometer of acc-knee-right-upper left out: it has no values",
        )

    opened(tmp_path, OPPORTUNITY, check)
    values[:, 1:134] = np.nan
    write(tmp_path, OPPORTUNITY, values)
    with pytest.raises(ValueError, match=r"S2-Drill\.dat: no sensor has values; leave the file"):
        opened(tmp_path, OPPORTUNITY)


def test_times_that_are_missing_or_jump_are_left_to_the_signal_path(tmp_path: Path) -> None:
    values = rows_of(PAMAP2, [4] * 40)
    values[5, 0] = np.nan
    values[20:, 0] += 1e6
    write(tmp_path, PAMAP2, values)

    def check(recording: Recording) -> None:
        time_s, _ = read_sensor(sensor_of(recording.devices[0], "acc_x"))
        np.testing.assert_allclose(time_s, values[:, 0])
        assert [round(end - start, 2) for start, end, _ in recording.labels] == [0.19, 0.19]

    opened(tmp_path, PAMAP2, check)


@each_set
@pytest.mark.parametrize("code", [99, 3.5, np.nan])
def test_unknown_activities_are_named(tmp_path: Path, data_set: Set, code: float) -> None:
    values = rows_of(data_set, [1] * 9)
    values[4, data_set.label] = code
    file = write(tmp_path, data_set, values)
    message = rf"{file.name}: row 5 has the unknown activity code {code}; known are 0, 1, "
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, data_set)


@each_set
def test_damaged_files_are_named(tmp_path: Path, data_set: Set) -> None:
    file = write(tmp_path, data_set, rows_of(data_set, [1] * 9))
    lines = file.read_text().splitlines()
    cells = lines[4].split()
    first = {"pamap2": 4, "mhealth": 5, "opportunity": 37}[data_set.reader]
    oops = data_set.separator.join([*cells[:first], "oops", *cells[first + 1 :]])
    for content, message in (
        ("", "no row, it is empty"),
        ("\n".join([*lines[:4], lines[4][:20]]), rf"line 5 has \d cells, not {data_set.columns}"),
        ("\n".join([*lines[:4], oops]), f"line 5, column {first + 1} holds 'oops'"),
        (b"PK\x03\x04 a zip".decode(), "line 1 has "),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=rf"{file.name}: {message}"):
            opened(tmp_path, data_set)


@each_set
def test_missing_and_double_files_are_told(tmp_path: Path, data_set: Set) -> None:
    reader = create_reader(data_set.reader, str(tmp_path))
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match=r"no .* \(nor of others\) below .*; point --src"):
        reader.recordings()
    write(tmp_path / "eins ü", data_set, rows_of(data_set, [1]))
    assert [ref.name for ref in reader.recordings()] == [data_set.name]
    (ref,) = reader.recordings()
    (tmp_path / ref.files[0]).unlink()
    with pytest.raises(FileNotFoundError), reader.open(ref):
        pass
    write(tmp_path / "one", data_set, rows_of(data_set, [1]))
    write(tmp_path / "two", data_set, rows_of(data_set, [1]))
    with pytest.raises(ValueError, match=f"are both recording {data_set.name}"):
        reader.recordings()
