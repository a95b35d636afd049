import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.readers import create_reader
from shards.readers.base import Reader
from tests import py2_pickle
from tests.reading import find_ref, read_sensor, sensor_of, spans

SECONDS = 40
RNG = np.random.default_rng(1)


def content(person: str, scale: float = 64.0) -> dict[str, Any]:
    """A recording of SECONDS with gravity of length ``scale`` in the accelerometer."""
    acc = RNG.normal((0.6, 0.0, 0.8), 0.02, (SECONDS * 32, 3))
    return {
        "signal": {
            "chest": {"ACC": np.zeros((SECONDS * 700, 3)), "ECG": np.zeros((SECONDS * 700, 1))},
            "wrist": {
                "ACC": np.round(acc * scale) if scale == 64 else acc * scale,
                "BVP": RNG.normal(0, 50, (SECONDS * 64, 1)),
                "EDA": np.zeros((SECONDS * 4, 1)),
                "TEMP": np.zeros((SECONDS * 4, 1)),
            },
        },
        "subject": person,
    }


def dalia(person: str = "S1", **options: float) -> dict[str, Any]:
    activity = np.repeat([0.0, 1, 0, 7, 8], [8, 40, 12, 60, 40])[:, None]  # at 4 Hz
    return {
        **content(person, **options),
        "activity": activity,
        "label": np.full(17, 71.5),  # heart rates
        "rpeaks": np.arange(5),
        "questionaire": {"Gender": " m", "AGE": 34, "SPORT": 6},
    }


def wesad(person: str = "S2") -> dict[str, Any]:
    label = np.repeat([0, 1, 2, 6, 4], 8 * 700).astype(np.int32)
    return {**content(person), "label": label}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(py2_pickle.dumps(value))


def open_one(reader: Reader, name: str = "S1") -> None:
    with reader.open(find_ref(reader, name)):
        pass


def test_ppg_dalia(tmp_path: Path) -> None:
    written = dalia()
    write(tmp_path / "PPG_FieldStudy" / "S1" / "S1.pkl", written)
    write(tmp_path / "PPG_FieldStudy" / "S12" / "S12.pkl", dalia("S12"))
    (tmp_path / "PPG_FieldStudy" / "S1" / "S1_E4.zip").write_bytes(b"")
    reader = create_reader("ppg_dalia", str(tmp_path))
    assert [ref.name for ref in reader.recordings()] == ["S1", "S12"]
    with reader.open(find_ref(reader, "S1")) as recording:
        (device,) = recording.devices
        bvp, acc = sensor_of(device, "bvp"), sensor_of(device, "acc_x")
        bvp_time, bvp_values = read_sensor(bvp)
        acc_time, acc_values = read_sensor(acc)
    wrist = written["signal"]["wrist"]
    np.testing.assert_array_equal(bvp_values, wrist["BVP"])
    np.testing.assert_array_equal(acc_values, wrist["ACC"])
    assert (bvp_time[0], bvp_time[-1]) == (0.0, SECONDS - 1 / 64)
    assert (acc_time[0], acc_time[-1]) == (0.0, SECONDS - 1 / 32)
    assert (bvp.unit, acc.unit, acc.limit) == ("1", "g/64", 127.0)
    assert acc.channels == ("acc_x", "acc_y", "acc_z")
    assert (recording.dataset, recording.person) == ("ppg_dalia", "ppg_dalia-S1")
    assert (device.placement, device.nominal_rate_hz) == ("wrist", None), "two rates"
    assert spans(recording) == [  # rows 8 to 47, 60 to 119, 120 to 159, of 0.25 s
        (2.0, 11.75, "sitting"),
        (15.0, 29.75, "walking"),
        (30.0, 39.75, "working"),
    ]


def test_wesad(tmp_path: Path) -> None:
    write(tmp_path / "WESAD" / "S2" / "S2.pkl", wesad())
    reader = create_reader("ppg_dalia", str(tmp_path))
    with reader.open(find_ref(reader, "S2")) as recording:
        assert (recording.dataset, recording.person) == ("wesad", "wesad-S2")
    assert spans(recording) == [  # 8 s each; 0 is transient, 6 is to be ignored
        (8.0, round(16 - 1 / 700, 6), "baseline"),
        (16.0, round(24 - 1 / 700, 6), "stress"),
        (32.0, round(40 - 1 / 700, 6), "meditation"),
    ]


def test_acceleration_in_g_is_told_by_its_median(tmp_path: Path) -> None:
    write(tmp_path / "S1.pkl", dalia(scale=1.0))
    reader = create_reader("ppg_dalia", str(tmp_path / "S1.pkl"))
    with reader.open(find_ref(reader, "S1")) as recording:
        acc = sensor_of(recording.devices[0], "acc_x")
    assert (acc.unit, acc.limit) == ("g", 127 / 64)
    write(tmp_path / "S1.pkl", dalia(scale=9.81))
    with pytest.raises(ValueError, match=r"median of \|signal/wrist/ACC\| is 9\.8"):
        open_one(reader)
    nothing = dalia()
    nothing["signal"]["wrist"]["ACC"][:] = np.nan
    write(tmp_path / "S1.pkl", nothing)
    with pytest.raises(ValueError, match=r"median of \|signal/wrist/ACC\| is nan"):
        open_one(reader)


def test_schema_has_four_channels_at_the_rate_of_the_pulse(tmp_path: Path) -> None:
    schema = create_reader("ppg_dalia", str(tmp_path)).schema()
    assert schema.channels == ("bvp", "acc_x", "acc_y", "acc_z")
    assert schema.units == ("1", "m/s2", "m/s2", "m/s2")
    assert (schema.rate_hz, schema.window_s) == (64.0, 8.0)


def test_lengths_that_differ_are_noted(tmp_path: Path) -> None:
    written = dalia()
    written["signal"]["wrist"]["ACC"] = written["signal"]["wrist"]["ACC"][: 32 * 30]
    write(tmp_path / "S1.pkl", written)
    reader = create_reader("ppg_dalia", str(tmp_path))
    with reader.open(find_ref(reader, "S1")) as recording:
        assert "pulse is +10.0 s longer than acceleration" in recording.notes


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("signal/wrist/BVP", None, "S1.pkl: signal/wrist/BVP is no array of numbers"),
        ("signal/wrist/BVP", np.zeros((9, 2)), r"BVP is no array .* rows of 1 \(ndarray, shape"),
        ("signal/wrist/ACC", np.zeros(9), "ACC is no array of numbers with rows of 3"),
        ("signal/wrist/ACC", np.zeros((0, 3)), "signal/wrist/ACC is empty"),
        ("signal/wrist", {}, "S1.pkl has no signal/wrist/BVP"),
        ("signal", [1, 2], "S1.pkl has no signal/wrist/BVP"),
        ("subject", "S7", "S1.pkl is named as of person S1, but its field subject says 'S7'; give"),
        ("activity", np.full((20, 1), 9.0), r"S1.pkl: activity: row 1 .*activity code 9\.0; known"),
        ("activity", np.array([[1.0], [np.nan]]), "row 2 has the unknown activity code"),
        ("activity", "sitting", "activity is no array of numbers"),
    ],
)
def test_missing_and_wrong_fields_are_named(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    written = dalia()
    *parents, last = path.split("/")
    place = written
    for key in parents:
        place = place[key]
    place[last] = value
    write(tmp_path / "S1.pkl", written)
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("ppg_dalia", str(tmp_path)))


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_act_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "created"
    written = {**dalia(), "signal": Touch(target)}
    (tmp_path / "S1.pkl").write_bytes(pickle.dumps(written))
    with pytest.raises(ValueError, match=r"S1\.pkl is not a complete pickle .*refused to load"):
        open_one(create_reader("ppg_dalia", str(tmp_path)))
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_empty_and_truncated_files_are_named(tmp_path: Path, share: float) -> None:
    data = py2_pickle.dumps(dalia())
    path = tmp_path / "Größe" / "S1.pkl"
    path.parent.mkdir()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"Größe/S1\.pkl is not a complete pickle"):
        open_one(create_reader("ppg_dalia", str(tmp_path)))


def test_missing_and_double_recordings_are_told(tmp_path: Path) -> None:
    reader = create_reader("ppg_dalia", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no S<person>\.pkl of PPG-DaLiA or WESAD"):
        reader.recordings()
    write(tmp_path / "PPG_FieldStudy" / "S2" / "S2.pkl", 1)
    write(tmp_path / "WESAD" / "S2" / "S2.pkl", 1)
    with pytest.raises(ValueError, match=r"S2.pkl and .*WESAD/S2/S2.pkl are both recording S2"):
        reader.recordings()
