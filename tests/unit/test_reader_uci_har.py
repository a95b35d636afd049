from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from shards.readers.uci_har import join_windows
from tests.reading import find_ref, read_sensor, spans

RNG = np.random.default_rng(19)
ROOT = "UCI HAR Dataset"
CHANNELS = tuple(f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz")


def cut(signal: np.ndarray) -> np.ndarray:
    """Windows ``(n, 128, 6)`` that overlap by half, of a signal ``(64 (n + 1), 6)``."""
    return np.stack([signal[start : start + 128] for start in range(0, len(signal) - 127, 64)])


def signal_of(windows: int) -> np.ndarray:
    return np.round(RNG.normal(0, 1, (64 * (windows + 1), 6)), 7)


def write(
    root: Path, windows: np.ndarray, people: list[int], codes: list[int], split: str = "train"
) -> Path:
    """A part of the data set, numbers written as its authors do; the part's folder."""
    folder = root / ROOT / split
    (folder / "Inertial Signals").mkdir(parents=True)
    (folder / f"subject_{split}.txt").write_text("".join(f"{p}\n" for p in people))
    (folder / f"y_{split}.txt").write_text("".join(f"{c}\n" for c in codes))
    for number, channel in enumerate(CHANNELS):
        lines = ["".join(f" {value: .7e}" for value in row) for row in windows[:, :, number]]
        (folder / "Inertial Signals" / f"{channel}_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def opened(root: Path, name: str = "train-subject01") -> None:
    reader = create_reader("uci_har", str(root))
    with reader.open(find_ref(reader, name)):
        pass


def test_windows_of_a_person_are_put_together(tmp_path: Path) -> None:
    one, two, other = signal_of(4), signal_of(2), signal_of(3)
    windows = np.concatenate([cut(other), cut(one), cut(two)])
    write(tmp_path, windows, [3] * 3 + [1] * 6, [6] * 3 + [5] * 4 + [1] * 2)
    write(tmp_path, cut(other), [2] * 3, [4] * 3, split="test")
    reader = create_reader("uci_har", str(tmp_path))
    names = ["test-subject02", "train-subject01", "train-subject03"]
    assert [ref.name for ref in reader.recordings()] == names
    with reader.open(find_ref(reader, "train-subject01")) as recording:
        (device,) = recording.devices
        acc, gyr = device.sensors
        # Five halves of a second segment begin 10 s after the first sample past the first segment.
        start_s = (5 * 64 + 500) / 50
        expected_s = np.concatenate([np.arange(320) / 50, start_s + np.arange(192) / 50])
        for sensor, columns in ((acc, slice(0, 3)), (gyr, slice(3, 6))):
            time_s, values = read_sensor(sensor)
            np.testing.assert_allclose(time_s, expected_s, atol=1e-9)
            np.testing.assert_array_equal(values, np.concatenate([one, two])[:, columns])
    assert (acc.unit, gyr.unit) == ("g", "rad/s")
    assert (device.name, device.placement, device.nominal_rate_hz) == ("phone", "waist", 50.0)
    assert spans(recording) == [
        (0.0, 6.38, "standing"),
        (start_s, round(start_s + 191 / 50, 6), "walking"),
    ]
    assert (recording.dataset, recording.person) == ("uci_har", "hapt-01")
    assert recording.notes == (
        "6 windows of 128 samples joined to 2 segments, which were put 10 s apart",
    )
    with reader.open(find_ref(reader, "test-subject02")) as recording:
        _, values = read_sensor(recording.devices[0].sensors[1])
        np.testing.assert_array_equal(values, other[:, 3:])
        assert spans(recording) == [(0.0, 5.1, "sitting")]


def test_one_wrong_sample_of_one_channel_parts_a_segment() -> None:
    windows = cut(signal_of(5))
    codes = np.ones(5, dtype=int)
    (whole,) = join_windows(windows, codes)
    assert whole.values.shape == (6 * 64, 6)
    windows[2, 63, 4] += 1e-7
    first, second = join_windows(windows, codes)
    np.testing.assert_array_equal(first.values, whole.values[: 3 * 64])
    np.testing.assert_array_equal(second.values[64:], whole.values[3 * 64 :])
    assert second.values[63, 4] != whole.values[2 * 64 + 63, 4]


def test_halves_on_which_windows_do_not_agree_have_no_label(tmp_path: Path) -> None:
    # Windows 0 and 1 walk, 2 and 3 sit: samples 128 to 192 belong to windows 1 and 2.
    write(tmp_path, cut(signal_of(4)), [7] * 4, [1, 1, 4, 4])
    reader = create_reader("uci_har", str(tmp_path))
    with reader.open(find_ref(reader, "train-subject07")) as recording:
        assert spans(recording) == [
            (0.0, (2 * 64 - 1) / 50, "walking"),
            (3 * 64 / 50, (5 * 64 - 1) / 50, "sitting"),
        ]


def test_windows_of_other_people_in_between_are_passed_over(tmp_path: Path) -> None:
    one, other = cut(signal_of(3)), cut(signal_of(1))
    write(tmp_path, np.concatenate([one[:2], other, one[2:]]), [1, 1, 5, 1], [1, 1, 2, 1])
    reader = create_reader("uci_har", str(tmp_path))
    with reader.open(find_ref(reader, "train-subject01")) as recording:
        time_s, _ = read_sensor(recording.devices[0].sensors[0])
        assert len(time_s) == 4 * 64
        assert {span.label for span in recording.labels} == {"walking"}


def test_all_activities_have_names(tmp_path: Path) -> None:
    windows = np.concatenate([cut(signal_of(1)) for _ in range(6)])
    write(tmp_path, windows, [1] * 6, [1, 2, 3, 4, 5, 6])
    reader = create_reader("uci_har", str(tmp_path))
    with reader.open(find_ref(reader, "train-subject01")) as recording:
        assert [span.label for span in recording.labels] == [
            "walking",
            "walking upstairs",
            "walking downstairs",
            "sitting",
            "standing",
            "lying",
        ]


@pytest.mark.parametrize(
    ("code", "shown"), [("7", "7"), ("0", "0"), ("1.5", "1.5"), ("NaN", "nan")]
)
def test_unknown_activities_are_named(tmp_path: Path, code: str, shown: str) -> None:
    folder = write(tmp_path, cut(signal_of(4)), [9, 1, 1, 1], [1] * 4)
    (folder / "y_train.txt").write_text(f"1\n1\n{code}\n1\n")
    message = rf"train/y_train\.txt: line 3 has the unknown activity code {shown}; known are 1 to 6"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)
    opened(tmp_path, "train-subject09")


def test_missing_files_are_told(tmp_path: Path) -> None:
    reader = create_reader("uci_har", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no train/subject_train\.txt \(nor of test\)"):
        reader.recordings()
    folder = write(tmp_path, cut(signal_of(2)), [1] * 2, [1] * 2)
    write(tmp_path, cut(signal_of(2)), [2] * 2, [1] * 2, split="test")
    for name in ("y_train.txt", "Inertial Signals/body_gyro_z_train.txt"):
        (folder / name).rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError, match=rf"no .*train/{name}; download the data set"):
            opened(tmp_path)
        opened(tmp_path, "test-subject02")
        (tmp_path / "away").rename(folder / name)
    opened(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, cut(signal_of(4)), [2, 1, 1, 1], [1] * 4)
    for name in ("y_train.txt", "Inertial Signals/total_acc_y_train.txt"):
        whole = (folder / name).read_text()
        lines = whole.splitlines()
        cells = len(lines[0].split())
        for content, message in (
            ("", ": no row below line 1"),
            ("\n".join(lines[:3]), " ends after 2 of the 3 rows from line 2 on"),
            ("\n".join([*lines[:2], lines[2] + " 1", lines[3]]), f": line 3 has {cells + 1} cells"),
            (whole.replace(lines[2], lines[2].replace("1", "x")), ": line .*, column .* holds"),
        ):
            (folder / name).write_text(content)
            with pytest.raises(ValueError, match=f"{name}{message}"):
                opened(tmp_path)
        (folder / name).write_text(whole)
    for line, message in (
        ("one", ", column 1 holds 'one'"),
        ("NaN", " holds nan, which is no person's number"),
        ("1.5", " holds 1.5, which is no person's number"),
        ("-1", " holds -1, which is no person's number"),
    ):
        (folder / "subject_train.txt").write_text(f"1\n{line}\n1\n1\n")
        with pytest.raises(ValueError, match=rf"subject_train\.txt: line 2{message}"):
            opened(tmp_path)


def test_two_copies_are_told(tmp_path: Path) -> None:
    for copy in ("one", "zwö"):
        write(tmp_path / copy, cut(signal_of(1)), [1], [1])
    with pytest.raises(ValueError, match=r"zwö/.* are both recording train-subject01"):
        create_reader("uci_har", str(tmp_path)).recordings()
