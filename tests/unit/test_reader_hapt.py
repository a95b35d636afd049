from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from tests.reading import find_ref, read_sensor, spans

RNG = np.random.default_rng(13)
FOLDER = "HAPT Data Set/RawData"


def write(
    root: Path,
    experiment: int = 1,
    user: int = 1,
    samples: int = 500,
    sensor: str = "acc",
    values: np.ndarray | None = None,
) -> np.ndarray:
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    values = RNG.normal(0, 1, (samples, 3)) if values is None else values
    lines = [" ".join(map(repr, row)) for row in values.tolist()]
    name = f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
    (folder / name).write_text("\n".join(lines) + "\n")
    return values


def write_labels(root: Path, *rows: tuple[object, ...]) -> None:
    lines = [" ".join(map(str, row)) + "\n" for row in rows]
    (root / FOLDER / "labels.txt").write_text("".join(lines))


def opened(root: Path, name: str = "exp01") -> None:
    reader = create_reader("hapt", str(root))
    with reader.open(find_ref(reader, name)):
        pass


def test_an_experiment(tmp_path: Path) -> None:
    acc, gyr = write(tmp_path), write(tmp_path, sensor="gyro")
    write(tmp_path, experiment=2), write(tmp_path, experiment=2, sensor="gyro")
    write(tmp_path, experiment=40, user=20)
    # Not in order of time; the last segment ends with the file.
    write_labels(
        tmp_path,
        (1, 1, 5, 51, 150),
        (1, 1, 7, 151, 200),
        (2, 1, 3, 1, 100),
        (1, 1, 6, 401, 500),
        (1, 1, 4, 201, 300),
    )
    reader = create_reader("hapt", str(tmp_path))
    names = ["exp01", "exp02", "exp40"]
    assert [ref.name for ref in reader.recordings()] == names
    ref = find_ref(reader, "exp01")
    assert ref.files == tuple(
        f"{FOLDER}/{name}"
        for name in ("acc_exp01_user01.txt", "gyro_exp01_user01.txt", "labels.txt")
    )
    with reader.open(ref) as recording:
        (device,) = recording.devices
        for sensor, unit, expected in zip(device.sensors, ("g", "rad/s"), (acc, gyr), strict=True):
            time_s, values = read_sensor(sensor)
            np.testing.assert_allclose(time_s, 0.02 * np.arange(500), atol=1e-12)
            np.testing.assert_array_equal(values, expected)
            assert sensor.unit == unit
    assert (device.name, device.placement, device.nominal_rate_hz) == ("smartphone", "waist", 50.0)
    assert spans(recording) == [
        (1.0, 2.98, "standing"),
        (3.0, 3.98, "stand to sit"),
        (4.0, 5.98, "sitting"),
        (8.0, 9.98, "lying"),
    ]
    assert (recording.dataset, recording.person, recording.notes) == ("hapt", "hapt-01", ())
    assert recording.sync == "no times in the files: rows taken to be 20 ms apart"
    with reader.open(find_ref(reader, "exp02")) as recording:
        assert spans(recording) == [(0.0, 1.98, "walking downstairs")]
    with reader.open(find_ref(reader, "exp40")) as recording:
        assert recording.person == "hapt-20"
        assert recording.notes == (
            "no gyroscope file",
            "labels.txt has no line for this experiment",
        )


def test_all_activities_have_names(tmp_path: Path) -> None:
    write(tmp_path)
    write_labels(tmp_path, *((1, 1, code, code * 10, code * 10 + 9) for code in range(1, 13)))
    reader = create_reader("hapt", str(tmp_path))
    with reader.open(find_ref(reader, "exp01")) as recording:
        assert [span.label for span in recording.labels] == [
            "walking",
            "walking upstairs",
            "walking downstairs",
            "sitting",
            "standing",
            "lying",
            "stand to sit",
            "sit to stand",
            "sit to lie",
            "lie to sit",
            "stand to lie",
            "lie to stand",
        ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, 1, 13, 1, 5), r"row 2 has the unknown activity code 13; known are 1 to 12"),
        ((1, 1, 0, 1, 5), r"row 2 has the unknown activity code 0"),
        ((1, 1, "NaN", 1, 5), r"row 2 has the unknown activity code nan"),
        ((1, 1, 1, 400, 501), r"row 2 has samples 400 to 501 of the 500 in .*acc_exp01_user01"),
        ((1, 1, 1, 0, 5), r"row 2 has samples 0 to 5 of the 500"),
        ((1, 1, 1, 9, 5), r"row 2 has samples 9 to 5 of the 500"),
        ((1, 1, 1, "NaN", 5), r"row 2 has samples nan to 5 of the 500"),
        ((1, 1, "WALKING", 1, 5), r"line 2, column 3 holds 'WALKING', which is no number"),
        ((1, 1, 1, 5), r"line 2 has 4 cells, not 5"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    write(tmp_path)
    write_labels(tmp_path, (1, 1, 1, 1, 100), row)
    with pytest.raises(ValueError, match=rf"RawData/labels\.txt: {message}"):
        opened(tmp_path)


def test_missing_labels_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*RawData/labels\.txt, which holds the act"):
        opened(tmp_path)
    write_labels(tmp_path)
    with pytest.raises(ValueError, match=r"labels\.txt: no row, it is empty"):
        opened(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, sensor="gyro")
    write_labels(tmp_path, (1, 1, 1, 1, 100))
    for sensor in ("acc", "gyro"):
        path = tmp_path / FOLDER / f"{sensor}_exp01_user01.txt"
        whole = path.read_text()
        lines = whole.splitlines()
        for content, message in (
            ("", "no row, it is empty"),
            (whole[: len(whole) // 2].rpartition(" ")[0], r"line \d+ has [12] cells, not 3"),
            ("\n".join([*lines[:7], "0.1 x 0.2"]), "line 8, column 2 holds 'x'"),
        ):
            path.write_text(content)
            with pytest.raises(ValueError, match=rf"{path.name}: {message}"):
                opened(tmp_path)
        path.write_text("\n".join(lines[:499]))
        acc, gyr = (499, 500) if sensor == "acc" else (500, 499)
        message = rf"gyro_exp01_user01\.txt has {gyr} rows, and .*/acc_.* next to it {acc};"
        with pytest.raises(ValueError, match=message):
            opened(tmp_path)
        path.write_text(whole)
    opened(tmp_path)


def test_missing_and_double_files_are_told(tmp_path: Path) -> None:
    reader = create_reader("hapt", str(tmp_path))
    write(tmp_path, sensor="gyro")
    with pytest.raises(FileNotFoundError, match=r"no RawData/acc_exp01_user01\.txt .* below"):
        reader.recordings()
    write(tmp_path / "one")
    write(tmp_path / "twö")
    with pytest.raises(ValueError, match=r"twö/.* are both recording exp01"):
        reader.recordings()
