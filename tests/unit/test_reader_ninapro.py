from pathlib import Path

import numpy as np
import pytest
import scipy.io

from shards.readers import create_reader
from shards.readers.base import Reader
from tests.reading import find_ref, read_sensor, spans

RNG = np.random.default_rng(0)
# Rest, movement 1 twice, movement 12, in DB5's rows of 5 ms.
RESTIMULUS = np.repeat([0, 1, 0, 1, 0, 12, 0], [40, 100, 60, 120, 50, 80, 30]).astype(np.int8)


def write(path: Path, channels: int = 16, **changes: object) -> dict[str, object]:
    rows = len(RESTIMULUS)
    variables: dict[str, object] = {
        "emg": RNG.integers(-128, 128, (rows, channels)).astype(np.float64),
        "stimulus": np.roll(RESTIMULUS, 20)[:, None],
        "restimulus": RESTIMULUS[:, None],
        "rerepetition": np.ones((rows, 1), dtype=np.int8),
        "glove": np.zeros((rows, 22)),
        "subject": np.array([[3]], dtype=np.uint8),
        "exercise": np.array([[2]], dtype=np.uint8),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    present = {name: value for name, value in variables.items() if value is not None}
    scipy.io.savemat(path, present, do_compression=True)
    return variables


def open_one(reader: Reader, name: str = "db5-S3_E2_A1") -> None:
    with reader.open(find_ref(reader, name)):
        pass


def test_a_file_becomes_a_recording(tmp_path: Path) -> None:
    variables = write(tmp_path / "s3" / "S3_E2_A1.mat")
    write(tmp_path / "s10" / "S10_E1_A1.mat")
    reader = create_reader("ninapro", str(tmp_path))
    assert [ref.name for ref in reader.recordings()] == ["db5-S10_E1_A1", "db5-S3_E2_A1"]
    with reader.open(find_ref(reader, "db5-S3_E2_A1")) as recording:
        (device,) = recording.devices
        (sensor,) = device.sensors
        time_s, values = read_sensor(sensor)
    np.testing.assert_array_equal(values, variables["emg"])
    np.testing.assert_allclose(time_s, np.arange(480) * 0.005, rtol=0, atol=1e-12)
    assert (sensor.unit, sensor.limit, device.placement) == ("1", 127.0, "forearm")
    assert sensor.channels == reader.schema().channels
    assert (recording.dataset, recording.person) == ("ninapro-db5", "ninapro-db5-3")
    # From rows 40, 200 and 370 to 139, 319 and 449, of 5 ms; rest has no label.
    assert spans(recording) == [
        (0.2, 0.695, "exercise 2 movement 01"),
        (1.0, 1.595, "exercise 2 movement 01"),
        (1.85, 2.245, "exercise 2 movement 12"),
    ]


def test_schema_is_that_of_the_database(tmp_path: Path) -> None:
    db5 = create_reader("ninapro", str(tmp_path)).schema()
    assert (len(db5.channels), set(db5.units), db5.rate_hz) == (16, {"1"}, 200.0)
    assert db5.channels[0] == "emg_1" and db5.channels[-1] == "emg_16"
    db2 = create_reader("ninapro", str(tmp_path), {"database": "db2"}).schema()
    assert (len(db2.channels), set(db2.units), db2.rate_hz) == (12, {"V"}, 2000.0)
    assert len(db2.units) == 12
    with pytest.raises(ValueError, match=r"database=db9: known NinaPro databases are db2, db5"):
        create_reader("ninapro", str(tmp_path), {"database": "db9"})


def test_db2_has_its_own_rate(tmp_path: Path) -> None:
    write(tmp_path / "DB2_s3" / "S3_E2_A1.mat", channels=12)
    reader = create_reader("ninapro", str(tmp_path), {"database": "db2"})
    with reader.open(find_ref(reader, "db2-S3_E2_A1")) as recording:
        time_s, _ = read_sensor(recording.devices[0].sensors[0])
    assert time_s[-1] == pytest.approx(479 / 2000)
    assert spans(recording)[0] == (0.02, 0.0695, "exercise 2 movement 01")


def test_electrodes_of_the_other_database_are_told(tmp_path: Path) -> None:
    write(tmp_path / "S3_E2_A1.mat", channels=12)
    with pytest.raises(ValueError, match=r"S3_E2_A1.mat: emg has shape \(480, 12\).*database=db2"):
        open_one(create_reader("ninapro", str(tmp_path)))
    write(tmp_path / "S3_E2_A1.mat", channels=10)
    with pytest.raises(ValueError, match=r"\(480, 10\), but db5 has rows of 16 .*check the file"):
        open_one(create_reader("ninapro", str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emg": None}, "S3_E2_A1.mat has no variable emg"),
        (
            {"subject": np.array([[7]], dtype=np.uint8)},
            "S3_E2_A1.mat is named as of person 3, but its variable subject says 7; give the file",
        ),
        ({"restimulus": None}, "S3_E2_A1.mat has no variable restimulus"),
        ({"emg": np.empty((0, 16))}, r"emg has shape \(0, 16\)"),
        ({"emg": "no signal"}, "emg holds .*, not numbers"),
        ({"restimulus": RESTIMULUS[:-7, None]}, "restimulus has 473 rows but emg 480"),
        ({"restimulus": RESTIMULUS[:, None] - 1}, "restimulus runs from -1 to 11"),
        ({"restimulus": RESTIMULUS[:, None].astype(float) * 1000}, "runs from 0 to 12000"),
    ],
)
def test_missing_and_wrong_variables_are_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write(tmp_path / "S3_E2_A1.mat", **changes)
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("ninapro", str(tmp_path)))


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.3, 0.7, 0.99])
def test_empty_and_truncated_files_are_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "Fälle" / "S3_E2_A1.mat"
    write(path, glove=None, stimulus=None, subject=None, exercise=None, rerepetition=None)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"Fälle/S3_E2_A1\.mat .*ownload it again"):
        open_one(create_reader("ninapro", str(tmp_path)))


def test_hdf5_files_of_matlab_7_3_are_told(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "S3_E2_A1.mat").write_bytes(header + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(ValueError, match=r"S3_E2_A1.mat is a MATLAB 7\.3 file .*save -v7"):
        open_one(create_reader("ninapro", str(tmp_path)))


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "other.mat").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no NinaPro file S<person>_E<exercise>_A1\.mat"):
        create_reader("ninapro", str(tmp_path)).recordings()


def test_two_databases_below_one_source_are_told(tmp_path: Path) -> None:
    write(tmp_path / "db2" / "S3_E2_A1.mat")
    write(tmp_path / "db5" / "S3_E2_A1.mat")
    with pytest.raises(ValueError, match=r"db2/S3_E2_A1.mat and .*db5/S3_E2_A1.mat are both"):
        create_reader("ninapro", str(tmp_path)).recordings()
