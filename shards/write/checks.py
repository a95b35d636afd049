"""What writing and verifying shards share: names of windows, checks of blocks, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.data.block_check import ExpectedBlock, wrong_fields
from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import Block, recording_id, session_id
from primus_scale.sample import WindowMeta

NORM_TOLERANCE = 1e-2  # of a float16 embedding of up to a few thousand dimensions


def describe_window(meta: WindowMeta) -> str:
    """A window's name for messages: where it comes from, and its uid."""
    return f"window {meta.uid} ({meta.dataset}/{meta.recording}, {meta.device}, {meta.start_s} s)"


def check_imu(imu: np.ndarray, shape: tuple[int, int], names: Sequence[str]) -> None:
    """Check imu ``(N, C, T)`` of the windows called ``names``; ``shape`` is ``(C, T)``.

    ValueError naming the window where samples are not finite, not float32, or of another shape.
    """
    expected = (len(names), *shape)
    if imu.shape != expected or imu.dtype != np.float32 or 0 in expected:
        raise ValueError(
            f"{names[0] if names else 'block'}: imu is {imu.dtype} {imu.shape}, expected "
            f"float32 {expected}; cut and resample windows to one shape before writing"
        )
    finite = np.isfinite(imu).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(
            f"{names[int(np.argmin(finite))]}: imu holds NaN or infinite samples; "
            "repair or drop the window before writing"
        )


def check_packed_block(
    block: Block, teachers: Mapping[str, TeacherSpace], labels: Sequence[str]
) -> None:
    """Check a packed block's columns; ValueError naming every field that does not fit.

    Embeddings must be those of ``teachers``, of unit norm where present and zero where not; uid,
    recording, session and label must be those of the metas, and labels among ``labels``.
    """
    expected = ExpectedBlock(len(block), block.imu.shape[1:], teachers, len(labels))
    faults = [*block_faults(block, expected, labels)]
    if faults:
        raise ValueError("; ".join(faults))


def block_faults(block: Block, expected: ExpectedBlock, labels: Sequence[str]) -> Iterator[str]:
    """All that is wrong with a block: what does not fit, and what contradicts the rest of it."""
    found = [*wrong_fields(block, expected)]
    yield from found
    if not found:  # columns of other shapes cannot be compared
        yield from _contradictions(block, labels)


def _contradictions(block: Block, labels: Sequence[str]) -> Iterator[str]:
    try:
        metas = block.metas
    except ValueError as error:
        yield str(error)
        return
    names = [*labels, None]  # NO_LABEL is the last
    in_metas: dict[str, list[Any]] = {
        "uid": [meta.uid for meta in metas],
        "recording": [recording_id(meta) for meta in metas],
        "session": [session_id(meta) for meta in metas],
        "label": [meta.label for meta in metas],
    }
    in_columns = {
        "uid": block.uid.tolist(),
        "recording": block.recording.tolist(),
        "session": block.session.tolist(),
        "label": [names[label] for label in block.label],
    }
    for name, values in in_columns.items():
        rows = [row for row, value in enumerate(values) if value != in_metas[name][row]]
        if rows:
            yield (
                f"{name} differs from that of meta.json in {len(rows)} windows, first in "
                f"{describe_window(metas[rows[0]])}"
            )
    for modality, embedding in block.embeddings.items():
        norm = np.linalg.norm(embedding.astype(np.float32), axis=1)
        if not (np.abs(norm - block.present[modality]) <= NORM_TOLERANCE).all():
            yield f"embeddings.{modality} are not of norm 1 where present and 0 where absent"


class ChannelStatistics:
    """Mean and deviation of each channel over all samples of all windows, in float64."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = np.zeros(channels)
        self._sum_of_squares = np.zeros(channels)

    def add(self, imu: np.ndarray) -> None:
        """Take in windows ``(N, C, T)``."""
        values = imu.astype(np.float64)
        self._count += imu.shape[0] * imu.shape[2]
        self._sum += values.sum(axis=(0, 2))
        self._sum_of_squares += np.square(values).sum(axis=(0, 2))

    def sums(self) -> dict[str, Any]:
        """What it has counted so far, as JSON."""
        return {
            "count": self._count,
            "sum": self._sum.tolist(),
            "sum_of_squares": self._sum_of_squares.tolist(),
        }

    def add_sums(self, sums: Mapping[str, Any]) -> None:
        """Take in what another has counted (``sums``)."""
        self._count += sums["count"]
        self._sum += sums["sum"]
        self._sum_of_squares += sums["sum_of_squares"]

    def mean(self) -> tuple[float, ...]:
        """Mean of each channel."""
        return tuple((self._sum / self._count).tolist())

    def std(self) -> tuple[float, ...]:
        """Population deviation of each channel; 0 for a constant one."""
        mean = self._sum / self._count
        variance = self._sum_of_squares / self._count - np.square(mean)
        return tuple(np.sqrt(np.maximum(variance, 0.0)).tolist())
