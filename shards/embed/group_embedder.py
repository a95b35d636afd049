"""A worker of the embedding stage: runs the frozen teachers over one group of windows at a time.

embedder = GroupEmbedder(source_url, work_url, build_teachers, spaces, shape, threads)
result = embedder(GroupRequest("group-000000.tar", places))

A group's windows are written to a tar in the work folder: a window without its frames, and a
float16 vector for each modality it has. Nothing is shared between groups, so the bytes of a group
depend neither on the worker that has it nor on what that worker did before.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from primus_scale.data.index import TeacherSpace
from primus_scale.data.members import Data, decode_member, encode_npy
from primus_scale.data.record import decode_window, encode_window, recording_id, session_id
from primus_scale.data.record_place import RecordPlace
from primus_scale.sample import SIGNAL, Window, WindowMeta
from primus_scale.storage.folder import Folder
from primus_scale.teachers import (
    Teacher,
    UnreadableFrameError,
    check_teachers,
    embed_windows,
    window_samples,
)
from shards.embed.order import WindowColumns
from shards.write.checks import check_imu, describe_window
from shards.write.copying import RecordReader
from shards.write.shard_file import ShardRecord, window_key, write_shard


class GroupRequest(NamedTuple):
    """A group to be embedded: the name of its tar, and where its windows lie."""

    name: str
    places: Sequence[RecordPlace]

    @property
    def windows(self) -> int:
        """How many windows it holds."""
        return len(self.places)


class GroupEmbedder:
    """Embeds windows of the folder at ``source_url`` into tars in the folder at ``work_url``.

    build_teachers: builds them by modality, in the worker. spaces: those that they must have.
    shape: ``(C, T)`` of a window. threads: that decode pictures and run teachers.
    """

    def __init__(
        self,
        source_url: str,
        work_url: str,
        build_teachers: Callable[[], Mapping[str, Teacher]],
        spaces: Mapping[str, TeacherSpace],
        shape: tuple[int, int],
        threads: int,
    ) -> None:
        self._source = RecordReader(source_url)
        self._folder = Folder(work_url)
        self._teachers = build_teachers()
        try:
            check_teachers(self._teachers, spaces, work_url)
        except ValueError as error:
            raise ValueError(
                f"this machine's teachers are not those of the machine that started the command "
                f"({error}); install the same package versions on all machines"
            ) from None
        self._shape = shape
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, request: GroupRequest) -> dict[str, Any]:
        """Embed a group's windows into its tar.

        Returns the tar's ``ShardEntry`` as ``file``, the windows' columns (``pack_columns``) as
        ``windows``, and as ``embedded`` how many of them each teacher has embedded, as JSON.
        ValueError naming the window where a frame cannot be decoded or samples are not as the index
        says.
        """
        group = [decode_window(members) for members in self._source.read(request.places)]
        for window in group:
            check_imu(window.imu[None], self._shape, [describe_window(window.meta)])
        with _reproducible():
            vectors = {m: self._embed(m, teacher, group) for m, teacher in self._teachers.items()}
        records = (
            ShardRecord(window_key(window.meta.uid), encode_row(window, row))
            for window, row in zip(group, _rows(vectors, len(group)), strict=True)
        )
        entry = write_shard(self._folder, request.name, records)
        embedded = {modality: int(mask.sum()) for modality, (_, mask) in vectors.items()}
        windows = pack_columns([window.meta for window in group])
        return {"file": asdict(entry), "windows": windows, "embedded": embedded}

    def _embed(
        self, modality: str, teacher: Teacher, group: Sequence[Window]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings ``(n, D)`` float16 of the group's windows, and mask ``(n,)``."""
        try:
            vectors, mask = embed_windows(teacher, _items(modality, group), self._pool.map)
        except UnreadableFrameError as error:
            owner = next(window for window in group if error.frame in window.frames)
            raise ValueError(f"{describe_window(owner.meta)}: {error}") from None
        return vectors.to(torch.float16).cpu().numpy(), mask.cpu().numpy()


def _items(modality: str, group: Sequence[Window]) -> Sequence[tuple[Any, ...]]:
    """What a teacher of ``modality`` embeds of each window."""
    if modality == SIGNAL:
        return window_samples(np.stack([window.imu for window in group]))
    return [window.frames if modality == "video" else window.meta.texts for window in group]


def pack_columns(metas: Sequence[WindowMeta]) -> str:
    """The columns of windows that their order depends on, as text: numbers would be twice as long.

    It is the base64 of ``WindowColumns``, one after another, as little-endian 64-bit numbers.
    """
    columns = WindowColumns(
        uid=np.array([meta.uid for meta in metas], "<i8"),
        session=np.array([session_id(meta) for meta in metas], "<i8"),
        recording=np.array([recording_id(meta) for meta in metas], "<i8"),
        start_s=np.array([meta.start_s for meta in metas], "<f8"),
    )
    return base64.b64encode(b"".join(column.tobytes() for column in columns)).decode()


def unpack_columns(text: str) -> WindowColumns:
    """What ``pack_columns`` made."""
    uid, session, recording, start = np.frombuffer(base64.b64decode(text), "<i8").reshape(4, -1)
    return WindowColumns(uid, session, recording, start.view("<f8"))


def encode_row(window: Window, vectors: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Members of a window without its frames, and its embeddings ``(D,)`` by modality."""
    members = encode_window(replace(window, frames=()))
    return members | {f"{m}.npy": encode_npy(vector) for m, vector in vectors.items()}


def decode_row(
    members: Mapping[str, Data], modalities: Sequence[str]
) -> tuple[Window, dict[str, np.ndarray]]:
    """What ``encode_row`` wrote: the window, and its embeddings by modality where it has them."""
    rest = dict(members)
    vectors = {
        m: decode_member(f"{m}.npy", rest.pop(f"{m}.npy"))
        for m in modalities
        if f"{m}.npy" in members
    }
    return decode_window(rest), vectors


def _rows(
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], count: int
) -> Iterator[dict[str, np.ndarray]]:
    for row in range(count):
        yield {m: columns[row] for m, (columns, mask) in vectors.items() if mask[row]}


@contextmanager
def _reproducible() -> Iterator[None]:
    """Make forward passes give equal bytes, for any number of them at once."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    # The pool runs passes in parallel; threads within each would only compete for cores.
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic
