"""Small shard folders for tests: random windows with frames, texts, labels and embeddings."""

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from primus_scale.data.index import ShardIndex, TeacherSpace
from primus_scale.data.record import Block, make_block
from primus_scale.sample import Window, WindowMeta, window_uid
from shards.write.writer import PackedShardWriter, WindowShardWriter

RATE_HZ = 50.0
SAMPLES = 40
LABELS = ("lie", "sit", "walk")
TEACHERS = {
    "video": TeacherSpace(dim=8, key="video-key", space="video-space", teacher="tiny-video"),
    "text": TeacherSpace(dim=6, key="text-key", space="text-space", teacher="tiny-text"),
}


def make_jpeg(shade: int) -> bytes:
    """A picture of one shade of grey."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (shade % 256,) * 3).save(stream, format="JPEG")
    return stream.getvalue()


def make_windows(
    count: int, *, seed: int = 0, frames: int = 1, dataset: str = "random", samples: int = SAMPLES
) -> list[Window]:
    """Windows of gravity plus noise; every third has no label, every fourth no frames and text."""
    rng = np.random.default_rng(seed)
    offset = np.array([0.0, 9.8, 0.0, 0.0, 0.0, 0.0])[:, None]
    windows = []
    for number in range(count):
        recording, start_s = f"recording-{seed}-{number // 10}", 2.5 * number
        aligned = number % 4 != 3
        meta = WindowMeta(
            uid=window_uid(dataset, recording, "imu", start_s),
            dataset=dataset,
            recording=recording,
            device="imu",
            placement=("chest", "left wrist")[number % 2],
            person=f"person-{number // 20}",
            session=recording,
            start_s=start_s,
            label=None if number % 3 == 2 else LABELS[number % len(LABELS)],
            texts=(f"C does {number}",) if aligned else (),
        )
        imu = (offset + rng.standard_normal((6, samples))).astype(np.float32)
        pictures = tuple(make_jpeg(number + f) for f in range(frames)) if aligned else ()
        windows.append(Window(imu=imu, meta=meta, frames=pictures))
    return windows


def write_windows(url: str, windows: Sequence[Window], **options: Any) -> ShardIndex:
    """A window shard folder."""
    with WindowShardWriter(url, rate_hz=RATE_HZ, **options) as writer:
        for window in windows:
            writer.write(window)
        return writer.close()


def make_blocks(
    windows: Sequence[Window],
    *,
    block: int = 16,
    seed: int = 0,
    labels: Sequence[str] = LABELS,
    teachers: dict[str, TeacherSpace] = TEACHERS,
) -> list[Block]:
    """Blocks of ``block`` windows with random unit embeddings where a window has texts."""
    rng = np.random.default_rng(seed)
    blocks = []
    for start in range(0, len(windows), block):
        part = windows[start : start + block]
        present = np.array([bool(window.meta.texts) for window in part])
        embeddings = {}
        for modality, teacher in teachers.items():
            vectors = rng.standard_normal((len(part), teacher.dim))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            embeddings[modality] = vectors * present[:, None]
        blocks.append(
            make_block(
                np.stack([window.imu for window in part]),
                [window.meta for window in part],
                labels,
                embeddings,
                dict.fromkeys(teachers, present),
            )
        )
    return blocks


def write_packed(
    url: str,
    blocks: Sequence[Block],
    *,
    labels: Sequence[str] = LABELS,
    teachers: dict[str, TeacherSpace] = TEACHERS,
    **options: Any,
) -> ShardIndex:
    """A packed shard folder."""
    with PackedShardWriter(
        url, rate_hz=RATE_HZ, teachers=teachers, labels=labels, **options
    ) as writer:
        for block in blocks:
            writer.write(block)
        return writer.close()


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any], *, seal: bool = True) -> None:
    """Change ``index.json`` of a folder; with ``seal``, as one who knows how it is sealed."""
    path = folder / "index.json"
    tree = json.loads(path.read_text())
    change(tree)
    if seal:
        tree.pop("sha256", None)
        schema = tree.pop("schema")
        text = json.dumps({"schema": schema, **tree}, separators=(",", ":"))[:-1]
        tree = {"schema": schema, **tree, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(tree, separators=(",", ":")) + "\n")


def rewrite(
    folder: Path, records: Sequence[tuple[str, Mapping[str, bytes]]], **index_changes: Any
) -> None:
    """Write other records under an index that fits them byte by byte, as a faulty writer would.

    windows: how many of them the index gives each record, by default one.
    """
    tars = []
    for key, members in records:
        stream = io.BytesIO()
        tar = webdataset.TarWriter(stream, user="", group="", encoder=False, mtime=0)
        tar.write({"__key__": key, **members})
        end = tar.tarstream.offset
        tar.close()
        tars.append(stream.getvalue()[:end])
    rewrite_tars(folder, tars, **index_changes)


def rewrite_tars(folder: Path, records: Sequence[bytes], **index_changes: Any) -> None:
    """As ``rewrite``, of records that are tar members already."""
    for path in folder.glob("*.tar"):
        path.unlink()
    data = b"".join(records) + bytes(1024)
    (folder / "shard-000000.tar").write_bytes(data)
    rows, at = [], 0
    windows = index_changes.pop("windows", [1] * len(records))
    for record, count in zip(records, windows, strict=True):
        rows.append([at, len(record), count, zlib.crc32(record)])
        at += len(record)
    shard = {
        "name": "shard-000000.tar",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "records": rows,
    }
    edit_index(folder, lambda tree: tree.update(shards=[shard], **index_changes))
