"""A table of an encoder's features: a row a window, in the order of the shards or recordings.

Columns: dataset, person, session, recording, device, placement, start_s, label (null where unknown)
and features, a list of D float32. ``numpy.stack(pandas.read_parquet(FILE)["features"])`` is
``(n, D)``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from primus_scale.counted import counted
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders.card import EncoderCard
from primus_scale.encoders.pretrained import PretrainedEncoder
from primus_scale.sample import WindowMeta
from primus_scale.splits.spans import sample_hash
from primus_scale.storage.files import check_output_file
from shards.ingest.copies import find_copies
from shards.ingest.summary import explain_no_windows, summary
from shards.ingest.windows import RecordingWindows
from shards.readers import create_reader, reader_option
from shards.report import IngestReport, RecordingReport
from shards.settings import IngestSettings
from shards.tasks.progress import TaskProgress, print_line

BATCH = 256  # windows encoded at once, and rows of a group of the file
ABOUT = ("dataset", "person", "session", "recording", "device", "placement")


def check_table(out: Path) -> None:
    """Check that the table may be written to ``out``; raises as ``check_output_file``."""
    check_output_file(out, (".parquet", ".pq"), "a table of features", _is_table)


def _is_table(path: Path) -> bool:
    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return False
    return {*ABOUT, "features"} <= set(names)


class _Encodable(NamedTuple):
    imu: np.ndarray  # (C, T)
    meta: WindowMeta


def encode_shards(encoder: PretrainedEncoder, url: str, out: Path) -> int:
    """Write the features of all windows of a shard folder to ``out``; returns their number.

    Prints progress. Raises ValueError where the folder's windows are not the encoder's, and as
    ``ShardSet.open``.
    """
    shard_set = ShardSet.open(url)
    encoder.card.check_windows(shard_set.index.window_format, url)
    progress = TaskProgress("encode", shard_set.windows, "windows", print_line)

    def windows() -> Iterator[_Encodable]:
        for record in range(len(shard_set)):
            block = shard_set.read_block(record, pictures=False)
            for imu, meta in zip(block.imu, block.metas, strict=True):
                yield _Encodable(np.asarray(imu), meta)
            progress.add(len(block))

    return _write(encoder, windows(), out)


def encode_recordings(
    encoder: PretrainedEncoder,
    reader_name: str,
    url: str,
    out: Path,
    *,
    options: Sequence[str] = (),
    hop_s: float | None = None,
) -> int:
    """Write the features of raw recordings to ``out``; returns the number of windows.

    options: of the reader, as ``KEY=VALUE``. Prints for each recording how many windows it gave,
    and at the end what ``shards build`` tells: refusals, flags, recordings that could not be read.
    Raises ValueError where no recording gives a window.
    """
    reader = create_reader(reader_name, url, dict(reader_option(text) for text in options))
    settings = _settings_for(encoder.card, hop_s)
    refs = reader.recordings()
    reports: list[RecordingReport] = []
    samples: list[tuple[str, list[int]]] = []

    def windows() -> Iterator[_Encodable]:
        for number, ref in enumerate(refs, 1):
            try:
                with reader.open(ref) as recording:
                    made, own = RecordingWindows(recording, settings), list[int]()
                    for window in made:
                        own.append(sample_hash(window.imu))
                        yield _Encodable(window.imu, window.meta)
            except (ValueError, OSError) as error:
                reports.append(RecordingReport(reader_name, ref.name, error=str(error)))
                print(f"left out {ref.name}: {error}", file=sys.stderr)
                continue
            reports.append(made.report)
            samples.append((ref.name, own))
            print(f"{number} of {len(refs)}  {ref.name}: {counted(made.report.windows, 'window')}")

    rows = _write(encoder, windows(), out)
    found = IngestReport(
        reader=reader_name,
        source=url,
        settings=asdict(settings),
        recordings=tuple(reports),
        unread=tuple(reader.unread(refs)),
        copies=find_copies(samples),
    )
    if not rows:
        reason = explain_no_windows(found)
        raise ValueError(f"{url}: no recording gave a window, so there is no table ({reason})")
    for line in summary(found):
        print(line)
    return rows


def _settings_for(card: EncoderCard, hop_s: float | None) -> IngestSettings:
    window_s = card.window_samples / card.rate_hz
    return IngestSettings(
        channels=card.channels,
        units=card.units,
        rate_hz=card.rate_hz,
        window_s=window_s,
        hop_s=window_s if hop_s is None else hop_s,
        frames=0,
    )


def _write(encoder: PretrainedEncoder, windows: Iterable[_Encodable], out: Path) -> int:
    """The rows go to ``out`` with ``.partial`` added, which gets its name when it is whole."""
    partial, rows, writer = out.with_name(f"{out.name}.partial"), 0, None
    try:
        remaining = iter(windows)
        while group := list(islice(remaining, BATCH)):
            with torch.inference_mode():
                imu = np.stack([window.imu for window in group])
                features = encoder(imu).features.float().cpu().numpy()
            table = _table([window.meta for window in group], features)
            writer = writer or pyarrow.parquet.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            rows += len(group)
        if writer is not None:
            writer.close()
            partial.replace(out)
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    return rows


def _table(metas: Sequence[WindowMeta], features: np.ndarray) -> pyarrow.Table:
    columns = {
        name: pyarrow.array([getattr(meta, name) for meta in metas], pyarrow.string())
        for name in ABOUT
    }
    columns["start_s"] = pyarrow.array([meta.start_s for meta in metas], pyarrow.float64())
    columns["label"] = pyarrow.array([meta.label for meta in metas], pyarrow.string())
    values = pyarrow.array(features.reshape(-1), pyarrow.float32())
    columns["features"] = pyarrow.FixedSizeListArray.from_arrays(values, features.shape[1])
    return pyarrow.table(columns)
