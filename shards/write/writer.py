"""Writers of shard folders: window shards and packed shards.

    with WindowShardWriter(url, rate_hz=50.0, provenance={"seed": 0}) as writer:
        for window in windows:
            writer.write(window)

Bad data dies here, with an error that names the window: readers trust what was written. The index
is written last and in one step, so a folder without ``index.json`` is unfinished, and an exception
inside the ``with`` block leaves none. Equal windows in equal order give byte-identical folders. The
index says who is in the folder: ``people`` of its provenance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from primus_scale.data.index import (
    INDEX_NAME,
    ShardEntry,
    ShardIndex,
    TeacherSpace,
    write_index,
)
from primus_scale.data.record import Block, decode_window, encode_window
from primus_scale.data.record_columns import RECORDS_NAME
from primus_scale.sample import CHANNELS, UNITS, Window, WindowMeta
from primus_scale.storage.folder import STAGED, Folder, explain_write_errors
from shards.write.checks import ChannelStatistics, check_imu, check_packed_block, describe_window
from shards.write.people import people_by_dataset
from shards.write.shard_file import ShardFile, ShardRecord, block_record, shard_name, window_key

SHARD_BYTES = 64 * 2**20
_SHARD_NAME = re.compile(r"shard-\d{6}\.tar")


class _ShardWriter:
    """What both writers share: cutting records into tar files, and the index at the end."""

    kind: Literal["window", "packed"]

    def __init__(
        self,
        url: str,
        *,
        rate_hz: float,
        channels: Sequence[str] = CHANNELS,
        units: Sequence[str] = UNITS,
        shard_bytes: int = SHARD_BYTES,
        provenance: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self._folder = Folder(url)
        self._rate_hz = rate_hz
        self._channels = tuple(channels)
        self._units = tuple(units)
        self._shard_bytes = shard_bytes
        self._provenance = dict(provenance or {})
        self._window_samples: int | None = None
        self._statistics = ChannelStatistics(len(self._channels))
        self._uids: set[int] = set()
        self._people: set[tuple[str, str]] = set()
        self._shards: list[ShardEntry] = []
        self._shard: ShardFile | None = None
        self._labels: tuple[str, ...] = ()
        self._teachers: dict[str, TeacherSpace] = {}
        self._closed = False
        check_output(url, overwrite)
        open_output(url)
        remove_other_shards(url, ())

    def close(self) -> ShardIndex:
        """Finish the last shard and write the index, which is returned.

        ValueError where nothing was written: an empty folder would only fail later.
        """
        if not self._uids:
            self.abort()
            raise ValueError(f"no window was written to {self._folder.url}; check its source")
        with explain_write_errors(self._folder.url):
            self._finish_shard()
        index = self._index()
        write_index(index, self._folder.url)
        self._closed = True
        return index

    def abort(self) -> None:
        """Drop what was written; the folder keeps no index and none of the new shards."""
        if self._closed:
            return
        self._closed = True
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        for shard in self._shards:
            with suppress(OSError):  # without an index the folder is unfinished either way
                self._folder.remove(shard.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._closed:
            try:
                self.close()
            except BaseException:
                self.abort()
                raise

    def _write_record(self, record: ShardRecord) -> None:
        with explain_write_errors(self._folder.url):
            if self._shard is None:
                self._shard = ShardFile(self._folder, shard_name(len(self._shards)))
            self._shard.write(record)
            if self._shard.size >= self._shard_bytes:
                self._finish_shard()

    def _finish_shard(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            self._shards.append(shard.finish())

    def _check_imu(self, imu: np.ndarray, names: Sequence[str]) -> None:
        """Check imu ``(N, C, T)`` of the windows called ``names``."""
        if self._window_samples is None:
            self._window_samples = int(imu.shape[-1])
        check_imu(imu, (len(self._channels), self._window_samples), names)

    def _add_metas(self, metas: Sequence[WindowMeta]) -> None:
        """Take in who and what the windows are; ValueError where one was written already."""
        for meta in metas:
            if meta.uid in self._uids:
                raise ValueError(
                    f"{describe_window(meta)}: uid {meta.uid} was already written; drop the "
                    "duplicate"
                )
            self._uids.add(meta.uid)
            self._people.add((meta.dataset, meta.person))

    def _index(self) -> ShardIndex:
        assert self._window_samples is not None
        return ShardIndex(
            kind=self.kind,
            channels=self._channels,
            units=self._units,
            rate_hz=self._rate_hz,
            window_samples=self._window_samples,
            mean=self._statistics.mean(),
            std=self._statistics.std(),
            shards=tuple(self._shards),
            labels=self._labels,
            teachers=self._teachers,
            provenance={**self._provenance, "people": people_by_dataset(self._people)},
        )


class WindowShardWriter(_ShardWriter):
    """Writes windows, one a record; class names of the index are those met, in sorted order.

    Raises FileExistsError where ``url`` already holds an index and ``overwrite`` is not set, and
    OSError naming ``url`` where it cannot be written. The length of the first window is that of
    all.
    """

    kind = "window"

    def write(self, window: Window) -> None:
        """Append one window.

        Raises ValueError, with the window's name, where its samples are NaN, infinite, not float32
        ``(C, T)`` or of another length than before. Also where its uid is already there, or a frame
        is no JPEG.
        """
        name = describe_window(window.meta)
        imu = np.asarray(window.imu)[None]
        self._check_imu(imu, [name])
        members = encode_window(window)
        try:
            decode_window(members)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        self._write_window(window.meta, imu, members)

    def copy(self, members: Mapping[str, bytes]) -> None:
        """Append the window of a record of other window shards, whose members are kept as they are.

        ValueError as ``write``, and where the record is damaged.
        """
        window = decode_window(members)
        imu = window.imu[None]
        self._check_imu(imu, [describe_window(window.meta)])
        self._write_window(window.meta, imu, members)

    def _write_window(
        self, meta: WindowMeta, imu: np.ndarray, members: Mapping[str, bytes]
    ) -> None:
        self._add_metas([meta])
        self._statistics.add(imu)
        if meta.label is not None and meta.label not in self._labels:
            self._labels = tuple(sorted({*self._labels, meta.label}))
        self._write_record(ShardRecord(window_key(meta.uid), dict(members)))


class PackedShardWriter(_ShardWriter):
    """Writes blocks of windows with teacher embeddings, one block a record.

    ``teachers`` says what the embeddings of each modality are; every block must bring exactly
    these. ``labels`` are the class names that the blocks' label ids index. ``sessions``: the index
    says which parts of sessions a block consists of, as blocks hold them in order. Errors as
    ``WindowShardWriter``.
    """

    kind = "packed"

    def __init__(
        self,
        url: str,
        *,
        rate_hz: float,
        teachers: Mapping[str, TeacherSpace],
        labels: Sequence[str] = (),
        sessions: bool = False,
        channels: Sequence[str] = CHANNELS,
        units: Sequence[str] = UNITS,
        shard_bytes: int = SHARD_BYTES,
        provenance: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__(
            url,
            rate_hz=rate_hz,
            channels=channels,
            units=units,
            shard_bytes=shard_bytes,
            provenance=provenance,
            overwrite=overwrite,
        )
        self._teachers = dict(teachers)
        self._labels = tuple(labels)
        self._sessions = sessions
        self._blocks = 0

    def write(self, block: Block) -> None:
        """Append one block as one record.

        ValueError naming the window where samples are bad or a uid repeats, and naming the field
        where shapes, labels or embeddings do not fit.
        """
        names = [describe_window(meta) for meta in block.metas]
        self._check_imu(block.imu, names)
        check_packed_block(block, self._teachers, self._labels)
        self._add_metas(block.metas)
        self._statistics.add(block.imu)
        self._write_record(block_record(self._blocks, block, sessions=self._sessions))
        self._blocks += 1


def check_output(url: str, overwrite: bool) -> None:
    """FileExistsError where the folder at ``url`` has an index and ``overwrite`` is not set."""
    folder = Folder(url)
    with explain_write_errors(folder.url):
        names = folder.names()
    if INDEX_NAME in names and not overwrite:
        raise FileExistsError(
            f"{folder.url} already holds shards; choose another folder, or replace them "
            "(--overwrite)"
        )


def open_output(url: str) -> None:
    """Make the folder at ``url`` ready for shards; an old index goes, so that it is unfinished.

    OSError naming ``url`` where it cannot be written, before anything is computed for it.
    """
    folder = Folder(url)
    with explain_write_errors(folder.url):
        folder.create()
        folder.try_writing()
        for name in (INDEX_NAME, RECORDS_NAME):
            if name in folder.names():
                folder.remove(name)


def remove_other_shards(url: str, shards: Iterable[ShardEntry]) -> None:
    """Delete the shards in the folder at ``url`` that are none of ``shards``: an earlier run's.

    And what a kill has left of shards that were being written.
    """
    folder = Folder(url)
    keep = {shard.name for shard in shards}
    with explain_write_errors(folder.url):
        for name in folder.names():
            staged = name.startswith(".") and name.endswith(STAGED)
            if staged or (_SHARD_NAME.fullmatch(name) and name not in keep):
                folder.remove(name)
