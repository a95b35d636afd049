"""``shards embed``: frozen teachers over window shards, written as packed shards.

Windows are read in the order they lie in, embedded in groups, and kept on local disk; then they
are packed in an order drawn from the seed, so that every block is a random sample of the whole
set. Memory stays bounded by the group, whatever the size of the set.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primus_scale.data.index import ShardIndex, TeacherSpace
from primus_scale.data.record import Block, make_block
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import TEACHER_MODALITIES, Window, WindowMeta
from primus_scale.teachers import Teacher, UnreadableFrameError, build_teacher, embed_windows
from shards.writer import PackedShardWriter, describe

GROUP_WINDOWS = 2048  # windows embedded together, fewer where their frames are large
GROUP_BYTES = 64 * 2**20  # of encoded frames
READ_AHEAD = 32  # windows read at once
REMEMBERED = 16384  # units whose embeddings are kept, for those that occur again
REPORT_S = 5.0  # seconds between progress lines


def embed(
    windows_url: str,
    out_url: str,
    *,
    video: str | None = None,
    text: str | None = None,
    block: int = 256,
    seed: int = 0,
    device: str = "auto",
    batch: int = 64,
    workers: int | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> ShardIndex:
    """Embed the window shards at ``windows_url`` and write packed shards to ``out_url``.

    video, text: names of teachers as in ``TeachersConfig``; at least one. block: windows a record.
    seed: of the order of windows. batch: frames or texts in one forward pass. workers: threads
    that decode pictures and run teachers (None: one a core). overwrite: replace shards that
    already lie at ``out_url``. report: is told the progress in lines.

    Raises ValueError for settings that do not fit, unknown teachers and unreadable frames (naming
    the window), and as ``ShardSet.open`` and ``PackedShardWriter``. Where it fails, ``out_url``
    is left without an index.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    for name, value in (("block", block), ("batch", batch), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    source = _open_source(windows_url, out_url)
    teachers = _build_teachers({"video": video, "text": text}, device, batch)
    with (
        _writer(source, out_url, teachers, seed, overwrite) as writer,
        tempfile.TemporaryDirectory(prefix="primus-scale-") as scratch,
        ThreadPoolExecutor(workers) as pool,
        _one_torch_thread_each(),
    ):
        store = _Store(Path(scratch), source, teachers)
        stage = _Stage(source, teachers, pool, report)
        for group in stage.groups():
            store.append(group, stage.embed(group))
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(source))
        for start in range(0, len(order), block):
            writer.write(store.block(order[start : start + block], source.labels))
        index = writer.close()
    report(f"{out_url}: {index.windows} windows packed")
    return index


def _open_source(windows_url: str, out_url: str) -> ShardSet:
    if windows_url.rstrip("/") == out_url.rstrip("/"):
        raise ValueError(f"{out_url} is both source and output; name another output folder")
    source = ShardSet.open(windows_url)
    if source.index.kind != "window":
        raise ValueError(
            f"{windows_url} holds {source.index.kind} shards, which have no frames; give the "
            "window shards that primus-scale shards build writes"
        )
    return source


def _build_teachers(names: Mapping[str, str | None], device: str, batch: int) -> dict[str, Teacher]:
    if not any(names.values()):
        raise ValueError("no teacher is named; give --video, --text or both")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        modality: build_teacher(modality, name, device, batch=batch)
        for modality in TEACHER_MODALITIES
        if (name := names[modality])
    }


def _writer(
    source: ShardSet, out_url: str, teachers: Mapping[str, Teacher], seed: int, overwrite: bool
) -> PackedShardWriter:
    index = source.index
    return PackedShardWriter(
        out_url,
        rate_hz=index.rate_hz,
        channels=index.channels,
        units=index.units,
        labels=source.labels,
        teachers={
            modality: TeacherSpace(t.dim, t.key, t.space, t.name)
            for modality, t in teachers.items()
        },
        provenance={**index.provenance, "packing_seed": seed},
        overwrite=overwrite,
    )


class _Stage:
    """Reads windows in groups, and turns a group into embeddings."""

    def __init__(
        self,
        source: ShardSet,
        teachers: Mapping[str, Teacher],
        pool: Executor,
        report: Callable[[str], None],
    ) -> None:
        self._source = source
        self._teachers = teachers
        self._pool = pool
        self._encoders = {m: _Remembering(t, pool) for m, t in teachers.items()}
        self._progress = _Progress(len(source), report)

    def groups(self) -> Iterator[list[Window]]:
        """All windows in their order, in groups of bounded size."""
        group: list[Window] = []
        size = 0
        for window in self._windows():
            group.append(window)
            size += sum(map(len, window.frames))
            if len(group) == GROUP_WINDOWS or size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group

    def embed(self, group: Sequence[Window]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Embeddings ``(n, D)`` float32 and mask ``(n,)`` of the group's windows, by modality."""
        items: dict[str, list[tuple[Any, ...]]] = {
            "video": [window.frames for window in group],
            "text": [window.meta.texts for window in group],
        }
        result = {}
        for modality, teacher in self._teachers.items():
            try:
                vectors, mask = embed_windows(teacher, items[modality], self._encoders[modality])
            except UnreadableFrameError as error:
                raise ValueError(f"{_owner(error.frame, group)}: {error}") from None
            result[modality] = vectors.cpu().numpy(), mask.cpu().numpy()
        self._progress.add(len(group))
        return result

    def _windows(self) -> Iterator[Window]:
        for start in range(0, len(self._source), READ_AHEAD):
            records = range(start, min(start + READ_AHEAD, len(self._source)))
            yield from self._pool.map(self._source.read_window, records)


class _Remembering:
    """A teacher's ``encode`` that keeps the latest units' embeddings, and runs passes at once."""

    def __init__(self, teacher: Teacher, pool: Executor) -> None:
        self._teacher = teacher
        self._pool = pool
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __call__(self, units: Sequence[Any]) -> torch.Tensor:
        digests = [_digest(unit) for unit in units]
        found = {digest: self._known[digest] for digest in digests if digest in self._known}
        new = {d: unit for d, unit in zip(digests, units, strict=True) if d not in found}
        encoded = self._teacher.encode(list(new.values()), self._pool.map)
        found.update(zip(new, encoded, strict=True))
        for digest in new:
            self._known[digest] = found[digest]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return torch.stack([found[digest] for digest in digests]) if units else encoded


class _Store:
    """Windows and embeddings on local disk, until they are packed."""

    def __init__(self, folder: Path, source: ShardSet, teachers: Mapping[str, Teacher]) -> None:
        shape = (len(source.index.channels), source.index.window_samples)
        self._imu = _Column(folder / "imu", np.float32, shape)
        self._embeddings = {
            modality: _Column(folder / modality, np.float16, (teacher.dim,))
            for modality, teacher in teachers.items()
        }
        self._present: dict[str, list[bool]] = {modality: [] for modality in teachers}
        self._metas: list[WindowMeta] = []

    def append(
        self,
        windows: Sequence[Window],
        embedded: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Add a group of windows with their embeddings and masks by modality."""
        self._imu.append(np.stack([window.imu for window in windows]))
        self._metas += [window.meta for window in windows]
        for modality, (vectors, mask) in embedded.items():
            self._embeddings[modality].append(vectors)
            self._present[modality] += mask.tolist()

    def block(self, rows: np.ndarray, labels: Sequence[str]) -> Block:
        """The windows ``rows`` as one block."""
        return make_block(
            self._imu.read(rows),
            [self._metas[row] for row in rows],
            labels,
            embeddings={m: column.read(rows) for m, column in self._embeddings.items()},
            present={m: np.array(mask)[rows] for m, mask in self._present.items()},
        )


class _Column:
    """Rows of one shape and type in a file: appended, then read in any order."""

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = dtype
        self._shape = shape

    def append(self, rows: np.ndarray) -> None:
        """Add ``rows``; OSError naming the place where the disk is full."""
        try:
            # Written, not mapped: on a full disk a write raises, and a mapping kills the process.
            with self._path.open("ab") as file:
                file.write(rows.astype(self._dtype).tobytes())
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot keep windows in {self._path.parent}: {error.strerror}; set TMPDIR to a "
                "folder with as much free space as the packed shards need",
            ) from error

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers."""
        mapped = np.memmap(self._path, self._dtype, "r").reshape(-1, *self._shape)
        return np.asarray(mapped[rows])


class _Progress:
    """Reports windows done, windows/s and time left, every few seconds."""

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._start = self._last = time.monotonic()

    def add(self, windows: int) -> None:
        """Count ``windows`` more."""
        self._done += windows
        now = time.monotonic()
        if now - self._last < REPORT_S and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate
        self._report(
            f"embed  {self._done} of {self._total} windows  {rate:.0f} windows/s  {left:.0f} s left"
        )


def _owner(frame: bytes, group: Sequence[Window]) -> str:
    return next(describe(window.meta) for window in group if frame in window.frames)


def _digest(unit: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in unit if isinstance(unit, tuple) else (unit,):
        digest.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return digest.digest()


@contextmanager
def _one_torch_thread_each() -> Iterator[None]:
    """The workers are the parallelism; threads within each would only fight over the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
