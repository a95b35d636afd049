"""PPG-DaLiA and WESAD: pulse (BVP) and acceleration at the wrist, from an Empatica E4.

Source: Reiss et al., "Deep PPG", Sensors 2019 (PPG-DaLiA: 15 people, daily activities) and Schmidt
et al., "Introducing WESAD", ICMI 2018 (WESAD: 15 people, states of stress), and their readmes.
``S<person>/S<person>.pkl`` is a pickle of Python 2, all signals in it start together:

    subject: the person, as in the file's name
    signal/wrist/BVP (n, 1), 64 Hz, arbitrary unit      signal/wrist/ACC (n, 3), 32 Hz
    activity (n, 1), 4 Hz: PPG-DaLiA's activities       label (n,), 700 Hz: WESAD's states

``activity`` tells the two apart (PPG-DaLiA's own ``label`` is the heart rate). Acceleration is
documented in 1/64 g, the E4's unit, but there are files that hold g: its median tells which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from shards import placements
from shards.files.unpickle import load_numpy_pickle
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans, regular_samples
from shards.recording import (
    ACCELEROMETER,
    Device,
    LabelSpan,
    Recording,
    RecordingRef,
    Sensor,
    WindowSchema,
)

BVP_RATE_HZ = 64.0
ACC_RATE_HZ = 32.0


class _Study(NamedTuple):
    """dataset: name in the windows. field: that holds codes at rate_hz, named by ``names``."""

    dataset: str
    field: str
    rate_hz: float
    names: Mapping[int, str | None]


DALIA = _Study(
    "ppg_dalia",
    "activity",
    4.0,
    {
        0: None,  # transient
        1: "sitting",
        2: "climbing stairs",  # up and down
        3: "playing table soccer",
        4: "cycling",
        5: "driving",
        6: "having lunch",
        7: "walking",
        8: "working",
    },
)
WESAD = _Study(
    "wesad",
    "label",
    700.0,
    {
        0: None,  # transient
        1: "baseline",
        2: "stress",
        3: "amusement",
        4: "meditation",
        **dict.fromkeys((5, 6, 7)),  # to be ignored, says the readme
    },
)
# Unit of the accelerometer by the length of gravity in it. The E4 measures -2 to 2 g with 8 bits.
_UNITS = {64.0: "g/64", 1.0: "g"}
_FULL_SCALE_G = 127 / 64
_FILE = re.compile(r"(?:.*/)?(S\d+)\.pkl")


class PpgDaliaReader(Reader):
    """One recording a person, of one device at the wrist; the file says which data set it is of."""

    name: ClassVar[str] = "ppg_dalia"
    # The devices' own files, of which the pickles were made, and what people said of themselves.
    other_files: ClassVar[tuple[str, ...]] = (
        *("S*_activity.csv", "S*_quest.csv", "S*_E4.zip", "S*_E4/*", "S*_RespiBAN.h5"),
        *("S*_E4_Data.zip", "S*_E4_Data/*", "S*_respiban.txt", "S*_readme.txt"),
    )

    def schema(self) -> WindowSchema:
        """Pulse and acceleration at the pulse's rate; 8 s, the window of PPG-DaLiA's heart rate."""
        return WindowSchema(
            ("bvp", *ACCELEROMETER), ("1", "m/s2", "m/s2", "m/s2"), BVP_RATE_HZ, window_s=8.0
        )

    def recordings(self) -> list[RecordingRef]:
        """The files ``S<person>.pkl`` in any folder."""
        matches = filter(None, map(_FILE.fullmatch, self.source.find("**/*.pkl")))
        refs = [RecordingRef(match[1], (match[0],)) for match in matches]
        return checked_listing(self.source, refs, "S<person>.pkl of PPG-DaLiA or WESAD")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; the file's arrays are in memory while it is opened, the wrist's after."""
        where = self.source.locate(ref.files[0])
        with self.source.open(ref.files[0]) as stream:
            content = load_numpy_pickle(stream, where)
        _check_person(content, ref.name, where)
        bvp = _array(content, "signal/wrist/BVP", 1, where)
        acc = _array(content, "signal/wrist/ACC", 3, where)
        unit, scale = _acceleration_unit(acc, where)
        study = DALIA if "activity" in content else WESAD
        labels = _labels(content, study, where)
        del content  # above all the chest's signals, ten times as large
        pulse = Sensor(("bvp",), "1", partial(regular_samples, bvp, BVP_RATE_HZ))
        accelerometer = Sensor(
            ACCELEROMETER,
            unit,
            partial(regular_samples, acc, ACC_RATE_HZ),
            limit=_FULL_SCALE_G * scale,
        )
        notes = [f"no times in the file: pulse at {BVP_RATE_HZ:g} Hz, acceleration {ACC_RATE_HZ:g}"]
        apart_s = len(bvp) / BVP_RATE_HZ - len(acc) / ACC_RATE_HZ
        if abs(apart_s) > 1:
            notes.append(f"pulse is {apart_s:+.1f} s longer than acceleration")
        yield Recording(
            dataset=study.dataset,
            name=ref.name,
            person=f"{study.dataset}-{ref.name}",
            devices=(Device("wrist", placements.WRIST, (pulse, accelerometer)),),
            labels=labels,
            sync="one file: signals and labels start together, as its authors synchronised them",
            notes=tuple(notes),
        )


def _check_person(content: Any, person: str, where: str) -> None:
    """ValueError naming both where the file says that it is of another person than its name."""
    inside = content.get("subject", person) if isinstance(content, dict) else person
    if inside != person:
        raise ValueError(
            f"{where} is named as of person {person}, but its field subject says {inside!r:.80}; "
            "give the file the name that it was published with"
        )


def _labels(content: dict[str, Any], study: _Study, where: str) -> tuple[LabelSpan, ...]:
    codes = _array(content, study.field, 1, where)[:, 0]
    return label_spans(
        np.arange(len(codes)) / study.rate_hz, codes, study.names, f"{where}: {study.field}"
    )


def _acceleration_unit(acc: np.ndarray, where: str) -> tuple[str, float]:
    """Unit of the acceleration ``(n, 3)`` and the length of gravity in it."""
    length = np.linalg.norm(acc.astype(np.float64), axis=1)
    finite = length[np.isfinite(length)]
    median = float(np.median(finite)) if len(finite) else math.nan
    for gravity, unit in _UNITS.items():
        if 0.8 < median / gravity < 1.2:
            return unit, gravity
    raise ValueError(
        f"{where}: the median of |signal/wrist/ACC| is {median:.3g}; it should be near 64 "
        "(unit 1/64 g) or 1 (g). Download the file again"
    )


def _array(content: Any, path: str, columns: int, where: str) -> np.ndarray:
    """Numbers ``(n, columns)`` at a path of keys; ValueError naming file and path without."""
    value = content
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(
                f"{where} has no {path}; it should be a file S<person>.pkl of PPG-DaLiA or WESAD"
            )
        value = value[key]
    array = value if isinstance(value, np.ndarray) else np.array(None)
    if array.ndim == 1 and columns == 1:
        array = array[:, None]
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(
            f"{where}: {path} is no array of numbers with rows of {columns} ({type(value).__name__}"
            f", shape {np.shape(array)}); download the file again"
        )
    if not len(array):
        raise ValueError(f"{where}: {path} is empty; download the file again")
    return array


READER = PpgDaliaReader
