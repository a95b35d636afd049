"""Check that a block of windows has the shapes and types that the index of its folder gives.

The checksums of an index prove that bytes are as they were written, not that they were right. An
array of one channel would be broadcast to six channels, and surplus rows would be dropped, without
an error. So every block is compared with the index before its rows are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from primus_scale.counted import counted
from primus_scale.data.index import ShardIndex, TeacherSpace
from primus_scale.data.record import ID_COLUMNS, Block
from primus_scale.sample import NO_LABEL

_FLOAT_BITS = {"<f2": ("<i2", 0x7C00), "<f4": ("<i4", 0x7F800000)}  # integer type, and infinity


@dataclass(frozen=True)
class ExpectedBlock:
    """What a block must hold.

    windows: their number. shape: ``(C, T)`` of a window. teachers: by modality. labels: number of
    class names.
    """

    windows: int
    shape: tuple[int, int]
    teachers: Mapping[str, TeacherSpace]
    labels: int


def expected_block(index: ShardIndex, windows: int) -> ExpectedBlock:
    """What a block of ``windows`` windows must hold, according to its index."""
    shape = len(index.channels), index.window_samples
    return ExpectedBlock(windows, shape, index.teachers, len(index.labels))


def check_block(block: Block, expected: ExpectedBlock, *, values: bool = True) -> None:
    """ValueError naming every field of ``block`` that differs from ``expected``.

    Without ``values`` only counts, shapes, types and names are compared, which takes no time.
    """
    faults = list(wrong_fields(block, expected) if values else _wrong_columns(block, expected))
    if faults:
        raise ValueError("; ".join(faults))


def wrong_fields(block: Block, expected: ExpectedBlock) -> Iterator[str]:
    """A line for each field of ``block`` that differs from ``expected``.

    Checks counts, shapes, types and names of all columns, the range of label ids, that samples and
    embeddings are finite, and the start times in the metas.
    """
    yield from _wrong_columns(block, expected)
    try:
        if not np.array_equal(block.start_s, block.meta_starts):  # ``meta_starts`` checks metas
            yield "start_s differs from that of meta.json"
    except ValueError as error:
        yield str(error)
    if ((block.label < NO_LABEL) | (block.label >= expected.labels)).any():
        yield f"label holds ids beyond the {expected.labels} class names of the index"
    embeddings = ((f"embeddings.{name}", array) for name, array in block.embeddings.items())
    for name, array in (("imu", block.imu), *embeddings):
        if not _all_finite(array):
            yield from _not_finite(name, array, block.uid)


def _wrong_columns(block: Block, expected: ExpectedBlock) -> Iterator[str]:
    rows = len(block)
    if rows != expected.windows:
        yield f"holds {counted(rows, 'window')}, the index says {expected.windows}"
    yield from _wrong_array("imu", block.imu, np.float32, (rows, *expected.shape))
    for name in ID_COLUMNS:
        yield from _wrong_array(name, getattr(block, name), np.int64, (rows,))
    if block.starts is not None:
        yield from _wrong_array("start_s", block.starts, np.float64, (rows,))
    for group, columns in (("embeddings", block.embeddings), ("present", block.present)):
        if columns.keys() != expected.teachers.keys():
            yield f"block has {group} {sorted(columns)}, teachers are {sorted(expected.teachers)}"
    for modality, teacher in expected.teachers.items():
        if modality in block.embeddings:
            array, name = block.embeddings[modality], f"embeddings.{modality}"
            for fault in _wrong_array(name, array, np.float16, (rows, teacher.dim)):
                yield f"{fault}, the width of teacher {teacher.teacher}"
        if modality in block.present:
            yield from _wrong_array(
                f"present.{modality}", block.present[modality], np.bool_, (rows,)
            )


def _wrong_array(
    name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...]
) -> Iterator[str]:
    if array.dtype != dtype or array.shape != shape:
        yield f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}"


def _all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite.

    Taken as integers, the bits of such a value are larger than those of every finite value of the
    same sign. So two maxima are enough, which for float16 take a tenth of the time of
    ``np.isfinite``.
    """
    bits = _FLOAT_BITS.get(array.dtype.str) if array.size else None
    if bits is None:
        return bool(np.isfinite(array).all())
    kind, infinity = bits
    signed = np.ascontiguousarray(array).view(kind)
    unsigned = signed.view(f"u{signed.itemsize}")
    sign = 1 << (8 * signed.itemsize - 1)
    return bool(signed.max() < infinity and unsigned.max() < sign + infinity)


def _not_finite(name: str, array: np.ndarray, uids: np.ndarray) -> Iterator[str]:
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    what = "samples" if name == "imu" else "values"
    for row in np.flatnonzero(~finite):
        window = f"window {uids[row]}" if row < len(uids) else f"row {row}"
        yield f"{window}: {name} holds NaN or infinite {what}"
