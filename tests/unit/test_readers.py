"""What holds for all readers: they can be sent to workers, and they share their words."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import placements
from shards.demo.build import hapt_window
from shards.demo.hapt import ACTIVITIES as DEMO_ACTIVITIES
from shards.demo.hapt import PEOPLE, HaptRecording
from shards.demo.sensor import PLACEMENTS as DEMO_PLACEMENTS
from shards.ingest.windows import RecordingWindows
from shards.readers import (
    READERS,
    create_reader,
    hapt,
    hhar,
    mhealth,
    motionsense,
    opportunity,
    pamap2,
    ppg_dalia,
    realworld,
    uci_har,
    wisdm,
)
from shards.readers.base import Reader
from shards.readers.egoexo4d import TASKS
from shards.readers.rows import activity_name
from shards.recording import RecordingRef
from tests import ego4d_factory, egoexo4d_factory, folder_factory
from tests.reading import find_ref
from tests.recording_factory import acceleration, make_settings, rotation, sample_times
from tests.recordings import recording_path
from tests.unit import test_reader_hapt as hapt_files
from tests.unit import test_reader_hhar as hhar_files
from tests.unit import test_reader_matrix as matrix_files
from tests.unit import test_reader_motionsense as motionsense_files
from tests.unit import test_reader_ninapro as ninapro_files
from tests.unit import test_reader_ppg_dalia as ppg_files
from tests.unit import test_reader_realworld as realworld_files
from tests.unit import test_reader_uci_har as uci_har_files
from tests.unit import test_reader_wisdm as wisdm_files

VOCABULARY = {name: value for name, value in vars(placements).items() if name.isupper()}


def write_egoexo4d(root: Path) -> None:
    egoexo4d_factory.copy_vrs(root, "aria02_noimagestreams.vrs")
    egoexo4d_factory.write_takes(root)
    egoexo4d_factory.write_timesync(root)
    egoexo4d_factory.write_pictures(root)
    description = egoexo4d_factory.describe(0.1)
    egoexo4d_factory.write_descriptions(root, egoexo4d_factory.annotation(description))


def write_ego4d(root: Path) -> None:
    ego4d_factory.write_imu(root, sample_times(200, 1))
    ego4d_factory.write_metadata(root)
    spoken = [ego4d_factory.narration(1.0, "#C C nods")]
    ego4d_factory.write_narrations(
        root, {ego4d_factory.UID: {"narration_pass_1": {"narrations": spoken}}}
    )


def write_vrs(path: Path, time_code: bool = False) -> None:
    pytest.importorskip("projectaria_tools")
    from tests import vrs_factory

    time_ns = 42 * 10**9 + 1_250_000 * np.arange(50)
    pairs = [(42 * 10**9, 5000 * 10**9), (43 * 10**9, 5001 * 10**9)] if time_code else ()
    imus = {vrs_factory.IMU_LEFT: vrs_factory.make_imu(time_ns)}
    vrs_factory.write_vrs(path, imus, time_code=pairs)


def write_nymeria(root: Path) -> None:
    for unit in ("head", "lwrist", "rwrist"):
        folder = root / "20230607_s0_james_johnson_act1_e72nhq" / f"recording_{unit}" / "data"
        write_vrs(folder / "motion.vrs", time_code=True)


def write_gopro(root: Path) -> None:
    shutil.copy(recording_path("gopro_max_hero.mp4"), root)


def write_folder(root: Path) -> None:
    folder_factory.describe(root, folder_factory.description())
    columns = dict.fromkeys(folder_factory.ACC.values(), np.arange(5.0))
    folder_factory.write_csv(root / "wrist.csv", columns)


def write_matrix(data_set: matrix_files.Set) -> Callable[[Path], object]:
    return lambda root: matrix_files.write(root, data_set, matrix_files.rows_of(data_set, [1] * 9))


def write_realworld(root: Path) -> None:
    members = {
        f"acc_walking_{key}.csv": realworld_files.csv(realworld_files.table(9))
        for key in realworld.PLACEMENTS
    }
    realworld_files.write(root, "acc_walking_csv.zip", members)


def write_wisdm(root: Path) -> None:
    for device in ("phone", "watch"):
        wisdm_files.write(root, "A" * 9, device=device)


def write_uci_har(root: Path) -> None:
    """The 30 volunteers, some in either part."""
    for split, people in (("train", PEOPLE[9:]), ("test", PEOPLE[:9])):
        windows = np.concatenate([uci_har_files.cut(uci_har_files.signal_of(1)) for _ in people])
        uci_har_files.write(root, windows, list(people), [1] * len(people), split)


def write_hapt(root: Path) -> None:
    """The 30 volunteers, one experiment each."""
    for person in PEOPLE:
        for sensor in ("acc", "gyro"):
            hapt_files.write(root, person, person, samples=20, sensor=sensor)
    hapt_files.write_labels(root, *((person, person, 1, 1, 20) for person in PEOPLE))


def write_hhar(root: Path) -> None:
    for group, device in (("Phones", "nexus4_1"), ("Watch", "gear_1")):
        rows = hhar_files.Rows("a", device, "walk walk walk")
        hhar_files.write(root, f"{group}_accelerometer.csv", rows.lines())


SOURCES: dict[str, Callable[[Path], Any]] = {
    "egoexo4d": write_egoexo4d,
    "ego4d": write_ego4d,
    "aria": lambda root: write_vrs(root / "walk.vrs"),
    "nymeria": write_nymeria,
    "gopro": write_gopro,
    "folder": write_folder,
    "pamap2": write_matrix(matrix_files.PAMAP2),
    "mhealth": write_matrix(matrix_files.MHEALTH),
    "realworld": write_realworld,
    "wisdm": write_wisdm,
    "uci_har": write_uci_har,
    "hapt": write_hapt,
    "hhar": write_hhar,
    "motionsense": motionsense_files.write,
    "opportunity": write_matrix(matrix_files.OPPORTUNITY),
    "ninapro": lambda root: ninapro_files.write(root / "S3_E2_A1.mat"),
    "ppg_dalia": lambda root: ppg_files.write(root / "S1.pkl", ppg_files.dalia()),
}

ACTIVITIES = {
    "pamap2": pamap2.ACTIVITIES,
    "mhealth": mhealth.ACTIVITIES,
    "realworld": realworld.ACTIVITIES,
    "wisdm": wisdm.ACTIVITIES,
    "uci_har": uci_har.ACTIVITIES,
    "hapt": hapt.ACTIVITIES,
    "the demo": DEMO_ACTIVITIES,
    "hhar": hhar.ACTIVITIES,
    "motionsense": motionsense.ACTIVITIES,
    "opportunity": opportunity.LOCOMOTION,
    "ppg_dalia": ppg_dalia.DALIA.names,
    "wesad": ppg_dalia.WESAD.names,
    "egoexo4d": TASKS,
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_and_its_listing_can_be_sent_to_workers(name: str, tmp_path: Path) -> None:
    """The reader is pickled, and details go through a run's journal, which is JSON."""
    SOURCES[name](tmp_path)
    reader = create_reader(name, str(tmp_path))
    sent: Reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 (made here)
    refs = sent.recordings()
    assert refs == reader.recordings() and refs
    for ref in refs:
        details = json.loads(json.dumps(ref.details, allow_nan=False))
        with sent.open(RecordingRef(ref.name, ref.files, details)) as recording:
            assert recording.name == ref.name
            assert recording.person.startswith(f"{recording.dataset}-") or name == "uci_har"
            assert recording.devices
            for device in recording.devices:
                assert sum(len(chunk.time_s) for s in device.sensors for chunk in s.read())
                assert device.placement in VOCABULARY.values() or name == "folder"
            for span in recording.labels:
                assert span.label == activity_name(span.label)


def test_placements_are_named_by_one_vocabulary() -> None:
    assert {name: name.lower().replace("_", " ") for name in VOCABULARY} == VOCABULARY, (
        "small letters, spaces between words"
    )
    assert {placement.name for placement in DEMO_PLACEMENTS} <= set(VOCABULARY.values())
    devices = [placement.device for placement in DEMO_PLACEMENTS]
    assert "synthetic-left_wrist" in devices, "uids of windows depend on it"
    assert len(set(devices)) == len(devices)


def test_an_activity_has_one_spelling_in_all_data_sets() -> None:
    names = {name for table in ACTIVITIES.values() for name in table.values() if name is not None}
    assert {activity_name(name) for name in names} == names
    assert [name for name in names if name.startswith("folding")] == ["folding laundry"]
    assert {code: hapt.ACTIVITIES[code] for code in DEMO_ACTIVITIES} == DEMO_ACTIVITIES
    assert hapt.ACTIVITIES | uci_har.ACTIVITIES == hapt.ACTIVITIES


def people(name: str, root: Path) -> set[str]:
    SOURCES[name](root)
    reader, found = create_reader(name, str(root)), set()
    for ref in reader.recordings():
        with reader.open(ref) as recording:
            found.add(recording.person)
    return found


def test_the_volunteers_of_hapt_uci_har_and_the_demo_have_one_name_each(tmp_path: Path) -> None:
    imu, label = np.zeros((6, 250), np.float32), np.zeros(250, np.int64)
    demo = {hapt_window(HaptRecording(n, n, imu, label), 0, None).meta.person for n in PEOPLE}
    assert demo == {f"hapt-{number:02d}" for number in range(1, 31)}
    assert people("hapt", tmp_path / "hapt") == demo
    assert people("uci_har", tmp_path / "uci_har") == demo


def test_equal_windows_of_hapt_and_the_demo_have_equal_uids(tmp_path: Path) -> None:
    time_s = sample_times(50.0, 12.0)
    imu = np.concatenate([acceleration(time_s), rotation(time_s)], axis=1)
    folder = tmp_path / "RawData"
    folder.mkdir()
    for sensor, values in (("acc", imu[:, :3] / 9.80665), ("gyro", imu[:, 3:])):
        np.savetxt(folder / f"{sensor}_exp07_user04.txt", values)
    (folder / "labels.txt").write_text("7 4 1 1 600\n")
    reader = create_reader("hapt", str(tmp_path))
    with reader.open(find_ref(reader, "exp07")) as recording:
        settings = make_settings(window_s=5.0, hop_s=2.5)
        found = list(RecordingWindows(recording, settings))
    labels = np.ones(600, np.int64)
    known = HaptRecording(4, 7, imu.T.astype(np.float32), labels)
    expected = [hapt_window(known, start, "walking") for start in (0, 125, 250)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in ("uid", "dataset", "recording", "device", "placement", "person", "start_s"):
            assert getattr(one.meta, field) == getattr(other.meta, field), field
        assert one.meta.label == other.meta.label
        np.testing.assert_allclose(one.imu[:, 20:-20], other.imu[:, 20:-20], atol=0.05)
