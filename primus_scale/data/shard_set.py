"""Shard folders read as one set: records are numbered over all folders, and read one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Literal, NamedTuple, Self

import numpy as np

from primus_scale.data.block_check import check_block, expected_block
from primus_scale.data.index import (
    SessionPart,
    ShardEntry,
    ShardIndex,
    TeacherSpace,
    read_index,
)
from primus_scale.data.members import Data
from primus_scale.data.record import Block, decode_block, decode_window, make_block
from primus_scale.data.record_columns import columns_of
from primus_scale.data.record_place import (
    ReadBuffers,
    RecordPlace,
    decoding_record,
    kept_parts,
    place_of,
    read_record,
)
from primus_scale.sample import NO_LABEL, Window
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience

_SIZE_CHECKS = 16  # requests for sizes at a time; an object store takes about 20 ms for each
_SHARED_BY_CHANCE = 0.01  # up to this share, equal records of two folders are taken for chance
Crc = Literal["always", "first"]  # which reads of a record compare its bytes with their checksum
_ENCODER_INPUT = ("channels", "units", "rate_hz", "window_samples")


class _Kept(NamedTuple):
    """What ``ShardSet.keep`` keeps: numbers of records, and the rows and parts of each."""

    records: np.ndarray
    rows: list[np.ndarray]
    parts: list[tuple[SessionPart, ...] | None]


class _Reading:
    """What ``ShardSet.reading_with`` keeps for the reads of ``records`` records."""

    def __init__(self, records: int, crc: Crc) -> None:
        self.crc = crc
        self.buffers = ReadBuffers()
        self.checked = np.zeros(records, dtype=np.bool_)  # records whose content was checked


@dataclass(frozen=True)
class ShardSet:
    """Shard folders of equal kind, shape, rate and teachers, read as one.

    labels: class names of all folders; label ids of blocks index them. teachers: by modality, over
    all folders (windows of a folder without a modality lack it). A set holds no open file. After
    ``keep`` the records have only some of their windows, but mean and std are still those of all.
    """

    folders: tuple[Folder, ...]
    indexes: tuple[ShardIndex, ...]
    labels: tuple[str, ...]
    teachers: dict[str, TeacherSpace]
    _kept: _Kept | None = None
    _reading: _Reading | None = None

    @classmethod
    def open(
        cls, urls: str | Sequence[str], patience: Patience | None = None, *, sizes: bool = True
    ) -> Self:
        """Read the indexes of the folders at ``urls``, and check them and their shards.

        Without ``sizes`` the shards are not checked: see ``check_sizes``. FileNotFoundError where
        an index or a shard is missing; ValueError where a shard is not of the size its index says,
        or two folders do not fit together or hold the same windows (naming both); ConnectionError
        or TimeoutError where the storage does not answer within ``patience``.
        """
        patience = patience or Patience()
        urls = [urls] if isinstance(urls, str) else urls
        folders = tuple(Folder(url, patience) for url in urls)
        if not folders:
            raise ValueError("no shard folder was named; set data.train to at least one URL")
        indexes = tuple(read_index(folder.url, patience) for folder in folders)
        _check_no_folder_twice(folders, indexes)
        for folder, index in zip(folders[1:], indexes[1:], strict=True):
            pair = (folders[0], indexes[0]), (folder, index)
            _check_alike(*pair, ("kind", *_ENCODER_INPUT), "cannot be read as one set")
        shard_set = cls(
            folders=folders,
            indexes=indexes,
            labels=tuple(dict.fromkeys(label for index in indexes for label in index.labels)),
            teachers=_join_teachers(folders, indexes),
        )
        if sizes:
            shard_set.check_sizes()
        return shard_set

    def check_sizes(self) -> None:
        """Compare the sizes of all shards with the indexes, by one listing of each folder.

        Where there are several ranks, one of them should do it. Raises as ``open``.
        """
        _check_sizes(self.folders, self.indexes)

    def reading_with(self, patience: Patience, crc: Crc) -> Self:
        """The same set for a loader, whose reads wait for storage as ``patience`` says.

        A block is read into memory that the thread's next read uses again, so it is valid until
        then. Shapes, finite values and metas are checked at the first read of a record. With
        ``crc`` "always" the checksum proves at every later read that the bytes are the same.
        """
        folders = tuple(replace(folder, patience=patience) for folder in self.folders)
        return replace(self, folders=folders, _reading=_Reading(len(self), crc))

    def keep(self, rows: Sequence[np.ndarray]) -> Self:
        """The set of some windows only: ``rows`` of each record, in ascending order.

        Records without rows are left out. ``self`` must have all windows.
        """
        assert self._kept is None
        records = np.array([record for record, kept in enumerate(rows) if len(kept)], np.int64)
        chosen = [rows[record] for record in records.tolist()]
        parts = [
            kept_parts(self._place(record)[1].sessions, kept)
            for record, kept in zip(records.tolist(), chosen, strict=True)
        ]
        return replace(self, _kept=_Kept(records, chosen, parts))

    def __len__(self) -> int:
        """Number of records."""
        return len(self._kept.records) if self._kept is not None else int(self._starts[-1])

    @cached_property
    def _shards(self) -> list[tuple[int, ShardEntry]]:
        """All shards, each with the number of its folder."""
        return [(number, s) for number, index in enumerate(self.indexes) for s in index.shards]

    @cached_property
    def _starts(self) -> np.ndarray:
        """The number of each shard's first record, and last the number of all records."""
        return np.cumsum([0, *(len(shard.records) for _, shard in self._shards)])

    def _place(self, record: int) -> tuple[int, RecordPlace]:
        """Where a record is: the number of its folder, and the place there."""
        number = record if self._kept is None else int(self._kept.records[record])
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        folder, shard = self._shards[at]
        return folder, place_of(shard, number - int(self._starts[at]))

    @property
    def index(self) -> ShardIndex:
        """Index of the first folder. All share its kind, channels, units, rate and length."""
        return self.indexes[0]

    @cached_property
    def windows(self) -> int:
        """Number of windows in all folders, of those that are kept."""
        if self._kept is not None:
            return int(self.windows_per_record.sum())
        return sum(index.windows for index in self.indexes)

    @cached_property
    def windows_per_record(self) -> np.ndarray:
        """Windows of each record, int64."""
        if self._kept is not None:
            return np.array([len(rows) for rows in self._kept.rows], dtype=np.int64)
        windows = np.empty(len(self), dtype=np.int64)
        for start, (_, shard) in zip(self._starts.tolist(), self._shards, strict=False):
            windows[start : start + len(shard.records)] = columns_of(shard.records, 4)[2]
        return windows

    @property
    def by_sessions(self) -> bool:
        """Whether some folder is packed in the order of sessions."""
        return any(shard.sessions for index in self.indexes for shard in index.shards)

    @property
    def session_parts(self) -> list[tuple[SessionPart, ...]]:
        """The parts of sessions that each record consists of.

        ValueError where a folder does not say: its windows are packed in shuffled order.
        """
        for folder, index in zip(self.folders, self.indexes, strict=True):
            if not all(shard.sessions for shard in index.shards):
                raise ValueError(
                    f"data.session_windows is set, but {folder.url} is not packed in the order of "
                    "sessions; write it again with primus-scale shards embed --order sessions, or "
                    "leave data.session_windows unset"
                )
        if self._kept is not None:
            return [parts or () for parts in self._kept.parts]
        return [parts for _, shard in self._shards for parts in shard.sessions]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over all windows, in its unit."""
        return tuple(self._moments()[0].tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over all windows, in its unit; 0 if constant."""
        mean, square = self._moments()
        return tuple(np.sqrt(np.maximum(square - np.square(mean), 0.0)).tolist())

    def read_record(self, record: int, *, pictures: bool = True) -> dict[str, memoryview]:
        """Members of a record by extension, checked against the index; as `read_record`."""
        folder, place = self._place(record)
        reading = self._reading
        return read_record(
            self.folders[folder],
            place,
            pictures=pictures,
            buffers=None if reading is None else reading.buffers,
            check=reading is None or reading.crc == "always" or not reading.checked[record],
        )

    def read_window(self, record: int) -> Window:
        """The window of a record of window shards; raises as `read_record`."""
        members = self.read_record(record)
        folder, place = self._place(record)
        with decoding_record(self.folders[folder], place):
            return decode_window(members)

    def read_block(self, record: int, *, pictures: bool = True) -> Block:
        """The windows of a record of either kind, as columns; ``frames`` only with ``pictures``.

        Raises as `read_record`, and where the block is not as its index says.
        """
        members = self.read_record(record, pictures=pictures)
        if not pictures:
            members = {name: data for name, data in members.items() if not name.endswith(".jpg")}
        folder, place = self._place(record)
        index = self.indexes[folder]
        checked = self._reading is not None and bool(self._reading.checked[record])
        with decoding_record(self.folders[folder], place):
            block = decode_record(members, index)
            check_block(block, expected_block(index, place.entry.windows), values=not checked)
            if self._kept is not None:
                block = block.take(self._kept.rows[record])
        if self._reading is not None:
            self._reading.checked[record] = True
        if index.labels == self.labels:
            return block
        # NO_LABEL is -1, which takes the last entry of the table.
        table = np.array([*map(self.labels.index, index.labels), NO_LABEL])
        return replace(block, label=table[block.label])

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """First and second moment of each channel over all folders."""
        weights = np.array([index.windows for index in self.indexes], dtype=np.float64)
        means = np.array([index.mean for index in self.indexes])
        squares = np.square(means) + np.square([index.std for index in self.indexes])
        return (
            np.average(means, axis=0, weights=weights),
            np.average(squares, axis=0, weights=weights),
        )


def decode_record(members: Mapping[str, Data], index: ShardIndex) -> Block:
    """The block of a record, packed or of one window; ValueError where a member is damaged."""
    if index.kind == "packed":
        return decode_block(members)
    window = decode_window(members)
    return make_block(window.imu[None], [window.meta], index.labels, frames=(window.frames,))


def check_same_input(train: ShardSet, other: ShardSet) -> None:
    """Refuse shards whose windows do not fit an encoder that is trained on ``train``.

    ValueError naming a folder of each where channels, units, rate or length of window differ.
    """
    pair = (train.folders[0], train.index), (other.folders[0], other.index)
    _check_alike(*pair, _ENCODER_INPUT, "do not suit one encoder")


def _check_alike(
    first: tuple[Folder, ShardIndex],
    second: tuple[Folder, ShardIndex],
    names: Sequence[str],
    problem: str,
) -> None:
    for name in names:
        a, b = getattr(first[1], name), getattr(second[1], name)
        if a != b:
            raise ValueError(
                f"{first[0].url} and {second[0].url} {problem}: {name} is {a} in the first "
                f"and {b} in the second; write them alike, or leave one of them out"
            )


def check_held_out(train: ShardSet, other: ShardSet) -> None:
    """ValueError naming the folders where ``other`` holds records that are trained on."""
    both = [(train.folders, train.indexes), (other.folders, other.indexes)]
    _refuse_shared_records(both, "name held-out shards as data.validation, or leave it empty")


def _check_no_folder_twice(folders: Sequence[Folder], indexes: Sequence[ShardIndex]) -> None:
    """Refuse folders that hold the same records, even under different names."""
    each = [([folder], [index]) for folder, index in zip(folders, indexes, strict=True)]
    _refuse_shared_records(each, "they would count twice; name each folder once, and no copy of it")


def _refuse_shared_records(
    groups: Sequence[tuple[Sequence[Folder], Sequence[ShardIndex]]], advice: str
) -> None:
    """ValueError where folders of two groups hold the same records.

    Records are compared by length and crc32. Two different records agree in one of 2**32 cases, so
    among very many records a few agree by chance.
    """
    if len(groups) < 2:
        return
    keyed = [[*zip(of, map(_record_keys, indexes), strict=True)] for of, indexes in groups]
    for one, two in combinations(keyed, 2):
        for (a, left), (b, right) in product(one, two):
            shared = np.intersect1d(left, right, assume_unique=True).size
            fewer = min(left.size, right.size)
            if shared > _SHARED_BY_CHANCE * fewer:
                raise ValueError(
                    f"{a.url} and {b.url} hold the same windows: {shared} of {fewer} records are "
                    f"equal; {advice}"
                )


def _record_keys(index: ShardIndex) -> np.ndarray:
    """A number for each different record, made of its length and crc32, ``(n,)`` uint64."""
    columns = [columns_of(shard.records, 4) for shard in index.shards]
    length = np.concatenate([each[1].astype(np.uint64) for each in columns])
    crc32 = np.concatenate([each[3].astype(np.uint64) for each in columns])
    return np.unique(length << np.uint64(32) | crc32)


def _join_teachers(
    folders: Sequence[Folder], indexes: Sequence[ShardIndex]
) -> dict[str, TeacherSpace]:
    teachers: dict[str, TeacherSpace] = {}
    origin: dict[str, Folder] = {}
    for folder, index in zip(folders, indexes, strict=True):
        for modality, teacher in index.teachers.items():
            other = teachers.setdefault(modality, teacher)
            origin.setdefault(modality, folder)
            if (other.key, other.dim, other.space) != (teacher.key, teacher.dim, teacher.space):
                raise ValueError(
                    f"{origin[modality].url} and {folder.url} mix {modality} embeddings: key "
                    f"{other.key} ({other.teacher}) in the first, {teacher.key} "
                    f"({teacher.teacher}) in the second; embed both with one teacher "
                    "(primus-scale shards embed)"
                )
    return teachers


def _check_sizes(folders: Sequence[Folder], indexes: Sequence[ShardIndex]) -> None:
    """Find missing and truncated shards before training starts.

    One listing gives a thousand sizes. A shard is asked for by itself if the listing lacks it (over
    HTTP, or where listing is not allowed) or gives another size.
    """
    doubtful = [
        (folder, shard)
        for folder, index in zip(folders, indexes, strict=True)
        for listed in [_listed_sizes(folder)]
        for shard in index.shards
        if listed.get(shard.name) != shard.size
    ]
    with ThreadPoolExecutor(_SIZE_CHECKS) as pool:
        for _ in pool.map(lambda pair: _check_size(*pair), doubtful):
            pass


def _listed_sizes(folder: Folder) -> dict[str, int]:
    try:
        return folder.sizes()
    except (ConnectionError, TimeoutError):
        raise  # the storage does not answer; to ask for each shard would take as long again
    except OSError:
        return {}


def _check_size(folder: Folder, shard: ShardEntry) -> None:
    advice = f"restore it, or write {folder.url} again"
    try:
        size = folder.size(shard.name)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"shard {folder.locate(shard.name)} is missing, the index names it; {advice}"
        ) from None
    if size != shard.size:
        raise ValueError(
            f"shard {folder.locate(shard.name)} has {size} bytes, the index says {shard.size}; "
            f"{advice}"
        )
