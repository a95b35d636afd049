"""What holds for all readers: they can be sent to workers, and they share their words."""

import json
import pickle
from pathlib import Path

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
from tests.reader_sources import SOURCES
from tests.reading import find_ref
from tests.recording_factory import acceleration, make_settings, rotation, sample_times

VOCABULARY = {name: value for name, value in vars(placements).items() if name.isupper()}

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


# Of those whose data set tells of wearings that go on over several recordings.
SESSIONS = {
    "nymeria": {"20230607_s0_james_johnson"},
    "realworld": {"proband01"},
    "motionsense": {"sub01"},
    "ninapro": {"S3"},
}


@pytest.mark.parametrize("name", READERS)
def test_a_session_is_what_the_data_set_tells(name: str, tmp_path: Path) -> None:
    """Those of a reader that tells none are the recordings."""
    SOURCES[name](tmp_path)
    reader, found = create_reader(name, str(tmp_path)), set()
    for ref in reader.recordings():
        with reader.open(ref) as recording:
            found.add(recording.session)
    assert found == SESSIONS.get(name, {""})


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
        for field in ("uid", "dataset", "recording", "device", "placement", "person", "session"):
            assert getattr(one.meta, field) == getattr(other.meta, field), field
        assert one.meta.start_s == other.meta.start_s
        assert one.meta.label == other.meta.label
        np.testing.assert_allclose(one.imu[:, 20:-20], other.imu[:, 20:-20], atol=0.05)
