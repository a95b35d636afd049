from pathlib import Path

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.readers import create_reader
from shards.signal.condition import condition
from tests.reading import find_ref, read_sensor, spans

RNG = np.random.default_rng(17)
HEADER = (
    ",attitude.roll,attitude.pitch,attitude.yaw,gravity.x,gravity.y,gravity.z,"
    "rotationRate.x,rotationRate.y,rotationRate.z,"
    "userAcceleration.x,userAcceleration.y,userAcceleration.z"
)
FOLDER = "A_DeviceMotion_data/A_DeviceMotion_data"


def write(
    root: Path,
    trial: str = "wlk_7",
    person: int = 1,
    rows: int = 120,
    folder: str = FOLDER,
    values: np.ndarray | None = None,
) -> np.ndarray:
    """A trial's file; its numbers ``(rows, 12)`` in the order of the header."""
    path = root / folder / trial / f"sub_{person}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.round(RNG.normal(0, 1, (rows, 12)) if values is None else values, 6)
    lines = [f"{n},{','.join(map(repr, row))}" for n, row in enumerate(values.tolist())]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return values


def opened(root: Path, name: str = "wlk_7-sub01") -> None:
    reader = create_reader("motionsense", str(root))
    with reader.open(find_ref(reader, name)):
        pass


def test_a_trial(tmp_path: Path) -> None:
    values = write(tmp_path)
    for trial, person in (("jog_9", 24), ("dws_11", 3)):
        write(tmp_path, trial, person)
    for other in ("B_Accelerometer_data", "C_Gyroscope_data"):
        write(tmp_path, folder=f"{other}/{other}")
    reader = create_reader("motionsense", str(tmp_path))
    names = ["dws_11-sub03", "jog_9-sub24", "wlk_7-sub01"]
    assert [ref.name for ref in reader.recordings()] == names
    with reader.open(find_ref(reader, "wlk_7-sub01")) as recording:
        (device,) = recording.devices
        acc, gyr = device.sensors
        for sensor, expected in (
            (acc, values[:, 3:6] + values[:, 9:12]),
            (gyr, values[:, 6:9]),
        ):
            time_s, found = read_sensor(sensor)
            np.testing.assert_allclose(time_s, 0.02 * np.arange(120), atol=1e-12)
            np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (acc.unit, gyr.unit) == ("-g", "rad/s")
    assert (device.name, device.placement, device.nominal_rate_hz) == ("phone", "pocket", 50.0)
    assert (recording.dataset, recording.person) == ("motionsense", "motionsense-1")
    assert spans(recording) == [(0.0, 2.38, "walking")]
    assert recording.sync == "no times in the file: rows taken to be 20 ms apart"
    assert recording.notes == (
        "acceleration has the sign of iOS, down at rest: its sign was turned",
    )


def test_acceleration_points_up_at_rest_as_everywhere(tmp_path: Path) -> None:
    """iOS gives -1 g on the axis that points up; rotation has the usual sign."""
    path = tmp_path / FOLDER / "std_6" / "sub_1.csv"
    path.parent.mkdir(parents=True)
    row = "0,0,0,0,0.0,-1.0,0.0,0.25,0.0,-0.5,0.0,0.0,0.0"
    path.write_text("\n".join([HEADER, *[row] * 100]))
    reader = create_reader("motionsense", str(tmp_path))
    with reader.open(find_ref(reader, "std_6-sub01")) as recording:
        signal = condition(recording.devices[0], channels=CHANNELS, units=UNITS, rate_hz=50.0)
    assert signal.sensors[0].unit == "m/s2"
    imu = signal.segments[0].values[:, 50]
    np.testing.assert_allclose(imu, [0, 9.80665, 0, 0.25, 0, -0.5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("trial", "label"),
    [
        ("dws_1", "walking downstairs"),
        ("ups_12", "walking upstairs"),
        ("sit_5", "sitting"),
        ("std_14", "standing"),
        ("wlk_15", "walking"),
        ("jog_16", "jogging"),
    ],
)
def test_activities(tmp_path: Path, trial: str, label: str) -> None:
    write(tmp_path, trial)
    reader = create_reader("motionsense", str(tmp_path / "A_DeviceMotion_data"))
    with reader.open(find_ref(reader, f"{trial}-sub01")) as recording:
        assert [span.label for span in recording.labels] == [label]


def test_columns_are_found_by_name_and_empty_cells_are_invalid(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "sit_5" / "sub_2.csv"
    path.parent.mkdir(parents=True)
    names = HEADER.split(",")[::-1]
    rows = [[str(100 * row + column) for column in range(13)] for row in range(3)]
    rows[1][names.index("gravity.y")] = ""
    path.write_text("\r\n".join(",".join(row) for row in [names, *rows]))
    reader = create_reader("motionsense", str(tmp_path))
    with reader.open(find_ref(reader, "sit_5-sub02")) as recording:
        acc, gyr = (read_sensor(sensor)[1] for sensor in recording.devices[0].sensors)
    # User acceleration stands in columns 2, 1, 0 then, rotation in 5, 4, 3, gravity in 8, 7, 6.
    np.testing.assert_array_equal(acc[0], [10, 8, 6])
    np.testing.assert_array_equal(acc[1], [210, np.nan, 206])
    np.testing.assert_array_equal(gyr[2], [205, 204, 203])


def test_an_unknown_activity_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, "fly_3")
    message = r"fly_3/sub_1\.csv: unknown activity fly; known are dws, .*\. Correct the name of"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, "fly_3-sub01")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / FOLDER / "wlk_7" / "sub_1.csv"
    whole = path.read_text()
    lines = whole.splitlines()
    for content, message in (
        ("", ": no row, it is empty"),
        (HEADER, ": no row below line 1"),
        (whole[: len(whole) // 2].rpartition(",")[0], r": line \d+ has \d+ cells, not 13"),
        ("\n".join([*lines[:5], "4" + ",x" * 12]), ": line 6, column gravity.x holds 'x'"),
        (whole.replace("gravity.y", "y"), " has no column 'gravity.y'; the nearest is"),
        ("\n".join(lines[1:]), " has no column 'gravity.x'"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"wlk_7/sub_1\.csv{message}"):
            opened(tmp_path)


def test_missing_and_double_files_are_told(tmp_path: Path) -> None:
    reader = create_reader("motionsense", str(tmp_path))
    write(tmp_path, folder="B_Accelerometer_data")
    with pytest.raises(FileNotFoundError, match=r"no A_DeviceMotion_data/wlk_7/sub_1\.csv"):
        reader.recordings()
    write(tmp_path, folder="one")
    write(tmp_path, folder="zwei ü")
    with pytest.raises(ValueError, match=r"zwei ü/.* are both recording wlk_7-sub01"):
        reader.recordings()
