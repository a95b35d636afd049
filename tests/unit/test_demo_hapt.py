import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from shards.demo import hapt
from shards.demo.hapt import (
    ACTIVITIES,
    HaptRecording,
    labelled_windows,
    load_hapt,
    named_split,
    people_split,
    window_starts,
)
from tests.recordings import hapt_recordings


@pytest.fixture(scope="module")
def recordings() -> list[HaptRecording]:
    return hapt_recordings()


def test_all_recordings_are_there_in_si_units(recordings: list[HaptRecording]) -> None:
    assert [recording.experiment for recording in recordings] == list(range(1, 62))
    assert {recording.person for recording in recordings} == set(range(1, 31))
    assert sum(recording.imu.shape[1] for recording in recordings) == 1_122_772
    labels = np.concatenate([recording.label for recording in recordings])
    assert (labels != hapt.UNLABELLED).sum() == 815_614
    for recording in recordings:
        assert recording.imu.shape == (6, len(recording.label))
        assert recording.imu.dtype == np.float32
        assert 9.3 < np.median(np.linalg.norm(recording.imu[:3], axis=0)) < 11
        assert np.median(np.linalg.norm(recording.imu[3:], axis=0)) < 2


def test_gravity_tells_standing_from_lying(recordings: list[HaptRecording]) -> None:
    def up(activity: str) -> float:
        label = next(key for key, name in ACTIVITIES.items() if name == activity)
        return float(np.concatenate([r.imu[0, r.label == label] for r in recordings]).mean())

    assert up("standing") > 9
    assert up("lying") < 3


def test_another_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    forged = tmp_path / "HAPT.pkl.gz"
    forged.write_bytes(gzip.compress(pickle.dumps({})))
    with pytest.raises(ValueError, match=r"HAPT.pkl.gz: sha256 is"):
        load_hapt(forged)


def test_only_numpy_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        forged = tmp_path / "HAPT.pkl.gz"
        forged.write_bytes(gzip.compress(pickle.dumps(Attack(), protocol=protocol)))
        digest = hapt.hashlib.sha256(forged.read_bytes()).hexdigest()
        monkeypatch.setattr(hapt, "SHA256", digest)
        with pytest.raises(pickle.UnpicklingError, match="refused to load"):
            load_hapt(forged)


@pytest.mark.parametrize("split", range(5))
def test_people_are_on_one_side_of_a_split(split: int) -> None:
    label_people, test_people = people_split(split)
    assert len(label_people) == 21
    assert len(test_people) == 9
    assert set(label_people) | set(test_people) == set(hapt.PEOPLE)
    assert people_split(split) == (label_people, test_people)


def test_splits_differ_and_bad_ones_are_refused() -> None:
    assert len({people_split(split) for split in range(10)}) == 10
    assert len(people_split(0, test_people=3)[1]) == 3
    with pytest.raises(ValueError, match="split -1 is negative"):
        people_split(-1)
    with pytest.raises(ValueError, match="test_people"):
        people_split(0, test_people=30)


def test_named_people_are_tested_and_the_others_give_labels() -> None:
    label_people, test_people = named_split([7, 3])
    assert test_people == (3, 7)
    assert sorted(label_people + test_people) == list(hapt.PEOPLE)


@pytest.mark.parametrize("people", [[], [0], [31], [3, 3], list(hapt.PEOPLE)])
def test_people_who_cannot_be_tested_are_refused(people: list[int]) -> None:
    with pytest.raises(ValueError, match="name some of the people 1 to 30, each once, and not all"):
        named_split(people)


def test_windows_fit_and_lie_in_one_activity() -> None:
    assert list(window_starts(11, window=5, hop=3)) == [0, 3, 6]
    assert list(window_starts(4, window=5, hop=3)) == []
    label = np.array([-1, 1, 1, 1, 1, 1, 7, 7, 7, 7, 7, 2, 2, 2, -1, 1, 1, 1])
    recording = HaptRecording(1, 1, np.zeros((6, len(label)), dtype=np.float32), label)
    assert list(labelled_windows(recording, window=3, hop=1)) == [
        (1, 1),
        (2, 1),
        (3, 1),
        (11, 2),
        (15, 1),
    ]
