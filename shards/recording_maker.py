"""A worker of ingestion: makes the windows of one recording after the other.

maker = RecordingMaker(job, work_url)
made = maker((key, ref))  # Made as JSON, or Failed
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from primus_scale.data.index import ShardEntry
from primus_scale.data.record import encode_window
from primus_scale.data.storage import Folder
from shards.checks import ChannelStatistics, describe
from shards.parallel import Failed
from shards.readers import create_reader
from shards.readers.base import Reader
from shards.recording import RecordingRef
from shards.report import RecordingReport
from shards.settings import IngestSettings
from shards.windows import RecordingWindows
from shards.writer import window_key, write_shard

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class IngestJob:
    """What is ingested, and how. options: of the reader, as text."""

    reader: str
    source: str
    out: str
    settings: IngestSettings
    options: Mapping[str, str] = field(default_factory=dict)

    def create_reader(self) -> Reader:
        """The reader over the source."""
        return create_reader(self.reader, self.source, self.options)


@dataclass(frozen=True)
class Made:
    """What became of a recording. file: its windows in the work folder, if there are any.

    sums: of its samples (``ChannelStatistics``). labels: those met. uids: of its windows.
    """

    report: RecordingReport
    file: ShardEntry | None = None
    sums: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()

    @classmethod
    def parse(cls, tree: Any) -> Made:
        """From JSON (``dataclasses.asdict``)."""
        return _MADE.validate_python(tree)


_MADE = TypeAdapter(Made)


class _BrokenRecordingError(Exception):
    """A recording cannot be read; the others can."""


@contextmanager
def _reading() -> Iterator[None]:
    """What is raised while a recording is read concerns that recording alone.

    Except a full disk, which concerns all. Files of strangers raise almost anything, and one of
    thousands must not end the run.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise
        told = isinstance(error, ValueError | OSError) and str(error)
        raise _BrokenRecordingError(
            str(error) if told else f"{type(error).__name__}: {error}"
        ) from error


class RecordingMaker:
    """Writes the windows of recordings into tars in the folder at ``work_url``."""

    def __init__(self, job: IngestJob, work_url: str) -> None:
        self._settings = job.settings
        self._reader = job.create_reader()
        self._folder = Folder(work_url)

    def __call__(self, item: tuple[str, RecordingRef]) -> dict[str, Any] | Failed:
        """What became of the recording ``item[1]``: ``Made`` as JSON; ``item[0]`` names its tar.

        ``Failed`` where it cannot be read. OSError where the tar cannot be written, or where the
        whole source is gone.
        """
        key, ref = item
        try:
            return asdict(self._make(f"{key}.tar", ref))
        except _BrokenRecordingError as error:
            self._reader.source.check()
            return Failed(str(error))

    def _make(self, file: str, ref: RecordingRef) -> Made:
        with ExitStack() as stack:
            with _reading():
                recording = stack.enter_context(self._reader.open(ref))
                windows = RecordingWindows(recording, self._settings)
            records = _Records(windows, len(self._settings.channels))
            entry = write_shard(self._folder, file, records) if windows.report.windows else None
        return Made(
            report=windows.report,
            file=entry,
            sums=records.statistics.sums(),
            labels=tuple(sorted(records.labels)),
            uids=tuple(records.uids),
        )


class _Records:
    """The records of a recording's windows, counted and checked on the way."""

    def __init__(self, windows: RecordingWindows, channels: int) -> None:
        self.statistics = ChannelStatistics(channels)
        self.labels: set[str] = set()
        self.uids: list[int] = []
        self._windows = windows

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes], int]]:
        with _reading():
            for window in self._windows:
                if not np.isfinite(window.imu).all():
                    raise ValueError(
                        f"{describe(window.meta)} holds NaN or infinite samples; check the "
                        "calibration of its sensors"
                    )
                self.statistics.add(window.imu[None])
                self.uids.append(window.meta.uid)
                if window.meta.label is not None:
                    self.labels.add(window.meta.label)
                yield window_key(window.meta.uid), encode_window(window), 1
