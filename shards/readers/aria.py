"""Project Aria recordings of your own (VRS), Gen 1 and Gen 2, with narrations next to them.

Each ``.vrs`` file is a recording: the glasses' two IMUs and the pictures of the RGB camera. Texts
may lie next to ``walk.vrs`` as ``walk.csv``, ``walk.srt``, ``walk.vtt`` or ``walk.json`` (see
`shards.files.cues`). What the streams hold, and where that is documented: `shards.files.vrs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import ClassVar

from shards import placements
from shards.files.narrations import read_narrations
from shards.files.source import Source
from shards.files.vrs import SYNC, VrsFile, imu_labels, open_vrs
from shards.readers.base import Reader
from shards.readers.people import person_or_unknown
from shards.readers.rows import checked_listing
from shards.recording import Narration, Recording, RecordingRef

NARRATIONS = (".csv", ".json", ".srt", ".vtt")
_CLOCKS = {
    "start": "seconds from the first picture (from the first IMU record where there is none)",
    "device": "device time",
}


class AriaReader(Reader):
    """One recording for each VRS file, named by its path without the extension.

    imu: both, left or right. person: who wore the glasses in all recordings (empty: one unknown
    person). narration_clock: what times of narrations count from: start (the first picture) or
    device (the glasses' own clock).
    """

    name: ClassVar[str] = "aria"
    # What the phone's application and the machine perception services write next to a recording.
    other_files: ClassVar[tuple[str, ...]] = (
        *("*.vrs.json", "mps_*/*", "mps/*", "*health_check*.json", "*thumbnail*"),
    )

    def __init__(
        self,
        source: Source,
        imu: str = "both",
        person: str = "",
        narration_clock: str = "start",
    ) -> None:
        super().__init__(source)
        self.labels = imu_labels(imu)
        self.person = person
        if narration_clock not in _CLOCKS:
            raise ValueError(
                f"option narration_clock={narration_clock}: expected {' or '.join(_CLOCKS)}"
            )
        self.narration_clock = narration_clock

    def recordings(self) -> list[RecordingRef]:
        """All VRS files; opens none."""
        narration_files = {path for kind in NARRATIONS for path in self.source.find(f"**/*{kind}")}
        refs = []
        for path in self.source.find("**/*.vrs"):
            if PurePosixPath(path).name.startswith("._"):
                continue  # what macOS writes next to files on foreign disks
            bare = str(PurePosixPath(path).with_suffix(""))
            texts = (f"{bare}{kind}" for kind in NARRATIONS if f"{bare}{kind}" in narration_files)
            refs.append(RecordingRef(bare.replace("/", "-"), (path, *texts)))
        return checked_listing(self.source, refs, "file called *.vrs")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; ValueError where two files of narrations lie next to it."""
        path, *texts = ref.files
        with open_vrs(self.source, path) as file:
            devices = file.imu_devices(dict.fromkeys(self.labels, placements.HEAD))
            frames = file.camera()
            narrations, left_out = self._narrations(file, texts)
            notes = [*file.notes, *left_out]
            sync = SYNC
            if frames is None:
                notes.append("no camera-rgb stream: no pictures")
            if texts:
                sync += f"; narrations' times are taken to be {_CLOCKS[self.narration_clock]}"
            yield Recording(
                dataset=self.name,
                name=ref.name,
                person=person_or_unknown(self.name, self.person, notes),
                devices=devices,
                frames=frames,
                narrations=narrations,
                sync=sync,
                notes=tuple(notes),
            )

    def _narrations(
        self, file: VrsFile, texts: list[str]
    ) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
        """Narrations on the device's clock, and notes on those left out."""
        if not texts:
            return (), ()
        if len(texts) > 1:
            raise ValueError(
                f"{' and '.join(map(self.source.locate, texts))} are both narrations of one "
                "recording; keep one of them"
            )
        narrations, notes = read_narrations(self.source, texts[0])
        start_s = file.start_s() if self.narration_clock == "start" else 0.0
        return tuple(Narration(start_s + s, start_s + e, text) for s, e, text in narrations), notes


READER = AriaReader
