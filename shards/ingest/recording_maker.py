"""A worker of ingestion: makes the windows of one recording after the other.

maker = RecordingMaker(job, work_url)
result = maker(RecordingRequest(key, ref, versions))  # RecordingResult as JSON, or Failed
"""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from primus_scale.data.index import ShardEntry
from primus_scale.data.record import encode_window
from primus_scale.signal.resample import import_filters
from primus_scale.splits.spans import sample_hash
from primus_scale.storage.folder import Folder
from shards.ingest.windows import RecordingWindows
from shards.readers import create_reader
from shards.readers.base import Reader
from shards.recording import RecordingRef
from shards.report import RecordingReport
from shards.settings import IngestSettings
from shards.signal.sample_buffer import ScratchError
from shards.tasks.local import Failed
from shards.write.checks import ChannelStatistics, describe_window
from shards.write.shard_file import ShardRecord, window_key, write_shard

# Errors of the machine: no space, no file handles.
_MACHINE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestJob:
    """The source, output and settings of an ingestion. options: of the reader, as text."""

    reader: str
    source: str
    out: str
    settings: IngestSettings
    options: Mapping[str, str] = field(default_factory=dict)

    def create_reader(self) -> Reader:
        """The reader over the source."""
        return create_reader(self.reader, self.source, self.options)


@dataclass(frozen=True)
class RecordingResult:
    """The result of a recording. file: its windows in the work folder, if there are any.

    sums: of its samples (``ChannelStatistics``). labels: those met. uids: of its windows.
    samples: a hash of those of each window (``sample_hash``).
    """

    report: RecordingReport
    file: ShardEntry | None = None
    sums: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()

    @classmethod
    def parse(cls, tree: Any) -> RecordingResult:
        """From JSON (``dataclasses.asdict``)."""
        return _RESULT_TYPE.validate_python(tree)


_RESULT_TYPE = TypeAdapter(RecordingResult)


class _BrokenRecordingError(Exception):
    """A recording cannot be read; the others can."""


class _OutputError(Exception):
    """The output cannot be written; ``__cause__`` says why."""


@contextmanager
def _recording_errors() -> Iterator[None]:
    """Errors in the block are of this recording alone, unless of the machine or of the output.

    Damaged files raise almost any error, and one of thousands must not end the run. An unexpected
    kind may be a bug of ours: its traceback is logged.
    """
    try:
        yield
    except (_BrokenRecordingError, _OutputError, ScratchError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
            raise
        if isinstance(error, ValueError | OSError) and str(error):
            raise _BrokenRecordingError(str(error)) from error
        logger.warning("unexpected error while a recording was read", exc_info=error)
        raise _BrokenRecordingError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _output_errors() -> Iterator[None]:
    """Errors in the block are of the output, and so of all recordings."""
    try:
        yield
    except _BrokenRecordingError:
        raise
    except Exception as error:
        raise _OutputError from error


def _import_what_recordings_need() -> None:
    """What the first recording would import, in a second and a half: forks then have it."""
    import_filters()
    if "pyarrow" in sys.modules:  # the reader reads tables
        sys.modules["pyarrow"].array([0.0])  # it looks for pandas


class RecordingRequest(NamedTuple):
    """A recording to be made. key: names its tar. versions: of its files, when it was listed."""

    key: str
    ref: RecordingRef
    versions: Mapping[str, str]


class RecordingMaker:
    """Writes the windows of recordings into tars in the folder at ``work_url``."""

    def __init__(self, job: IngestJob, work_url: str) -> None:
        self._settings = job.settings
        self._reader = job.create_reader()
        self._folder = Folder(work_url)
        _import_what_recordings_need()

    def __call__(self, request: RecordingRequest) -> dict[str, Any] | Failed:
        """The result of the recording: ``RecordingResult`` as JSON, or ``Failed``.

        OSError where its tar cannot be written, or where its files have changed or are gone since
        they were listed.
        """
        for last in (False, True):
            try:
                return asdict(self._make(request))
            except _OutputError as error:
                assert error.__cause__ is not None
                raise error.__cause__ from None
            except _BrokenRecordingError as error:
                self._check_source(request)
                # The storage may work the second time; a damaged file will not.
                if last or not isinstance(error.__cause__, OSError):
                    return Failed(str(error))
        raise AssertionError("the second try returns")

    def _make(self, request: RecordingRequest) -> RecordingResult:
        with _recording_errors(), self._reader.open(request.ref) as recording:
            windows = RecordingWindows(recording, self._settings)
            json.dumps(asdict(windows.report), allow_nan=False)  # fails here if it is no valid JSON
            records = _Records(windows, len(self._settings.channels))
            entry = None
            if windows.report.windows:
                with _output_errors():
                    entry = write_shard(self._folder, f"{request.key}.tar", records)
        return RecordingResult(
            report=windows.report,
            file=entry,
            sums=records.statistics.sums(),
            labels=tuple(sorted(records.labels)),
            uids=tuple(sorted(records.uids)),
            samples=tuple(sorted(records.samples)),
        )

    def _check_source(self, request: RecordingRequest) -> None:
        source = self._reader.source
        source.check()
        for path, version in request.versions.items():
            if source.version(path) != version:
                raise OSError(
                    f"{source.locate(path)} is not there any more as it was listed; check that its "
                    "storage is mounted and nobody writes to it, and run it again: it goes on "
                    "where it was"
                )


class _Records:
    """The records of a recording's windows, counted and checked as they pass."""

    def __init__(self, windows: RecordingWindows, channels: int) -> None:
        self.statistics = ChannelStatistics(channels)
        self.labels: set[str] = set()
        self.uids: set[int] = set()
        self.samples: list[int] = []
        self._windows = windows

    def __iter__(self) -> Iterator[ShardRecord]:
        with _recording_errors():
            for window in self._windows:
                assert np.isfinite(window.imu).all()
                if window.meta.uid in self.uids:
                    raise ValueError(
                        f"{describe_window(window.meta)} is made twice; give its devices "
                        "different names"
                    )
                self.uids.add(window.meta.uid)
                self.samples.append(sample_hash(window.imu))
                self.statistics.add(window.imu[None])
                if window.meta.label is not None:
                    self.labels.add(window.meta.label)
                yield ShardRecord(window_key(window.meta.uid), encode_window(window))
