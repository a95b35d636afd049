"""``shards split``: window or packed shards divided into ``label/`` and ``test/``.

    split(["s3://bucket/shards/rides"], "s3://bucket/tasks/rides", test=0.3, seed=0)
    leave_out(["packed/rides"], "packed/no_waist", {"placement": ["waist"]})  # its folder train/

Records of window shards are copied, member by member. A block of packed shards is divided by rows,
and its windows keep their order. So nothing is encoded, compressed or embedded again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from primus_scale.data.index import TeacherSpace
from primus_scale.data.reader import read_ahead
from primus_scale.data.record import Block
from primus_scale.data.shard_set import ShardSet
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.sample import NO_LABEL, WindowMeta
from primus_scale.splits.counts import SplitCounts
from primus_scale.splits.sides import are_kept, draw_sides, read_sides, sides_csv, units_of
from primus_scale.splits.words import LABEL, TEST, UNUSED
from primus_scale.storage.apart import check_apart
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.storage.urls import parse_place
from shards.tasks.progress import TaskProgress, print_line
from shards.write.together import finished_together
from shards.write.writer import PackedShardWriter, WindowShardWriter

WRITTEN = (LABEL, TEST)
TRAIN = "train"  # the folder of what is left for pretraining
SIDES_FILE = "split.csv"


class _Division(NamedTuple):
    """Where windows go. side_of: a folder of ``written`` for each window, or another word."""

    side_of: np.ndarray
    written: Sequence[str]
    classes: Sequence[str]


def split(
    urls: Sequence[str],
    out_url: str,
    *,
    by: str | None = None,
    test: float | None = None,
    names: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    report: Callable[[str], None] = print_line,
) -> SplitCounts:
    """Divide the shard folders at ``urls``, read as one, into folders below ``out_url``.

    by: the unit that is on one side as a whole (``words.UNITS``; None: person, or what ``names``
    says). test: the share of units for the test, drawn by ``seed``; or names: a CSV file with the
    side of each (``read_sides``). report: called with lines of progress, with the table of counts
    and with what one should know. ``split.csv`` in ``out_url`` has the side of each unit; it can be
    given as ``names``.

    ValueError as ``draw_sides``, ``read_sides`` and ``SplitCounts.check_classes``; FileExistsError
    where a folder holds shards and ``overwrite`` is not set; OSError where the output cannot be
    written, or another process writes there; and as ``ShardSet.open``.
    """
    out_url = parse_place(out_url)
    source = ShardSet.open(urls)
    _check_apart(source, out_url, WRITTEN)
    metas = _read_metas(source, report)
    if names is not None:
        by, sides = read_sides(names, metas, by)
        choice, other_choice = names, f"change {names}"
    else:
        assert test is not None
        by = by or "person"
        sides = draw_sides(units_of(metas, by), by=by, test=test, seed=seed)
        choice, other_choice = f"seed {seed}", "take another --seed, or name the sides (--names)"
    counts = SplitCounts(metas, by, sides)
    report(f"split by {by}, {choice}\n{counts.table()}")
    counts.check_classes(other_choice)
    for warning in counts.warnings():
        report(f"note: {warning}")
    # Evaluations tell splits apart by the number of each.
    provenance = {"split": 0 if names else seed, "split_by": by, **_provenance(source)}
    division = _Division(np.array(counts.side_of), WRITTEN, counts.classes)
    with locked_folder(out_url, instead="another folder to write to"):
        _write(source, out_url, division, overwrite, provenance, report)
        _write_sides(out_url, sides_csv(by, sides, counts.windows_of))
    report(f"{out_url}: {', '.join(f'{side}/' for side in WRITTEN)} and {SIDES_FILE} written")
    return counts


def leave_out(
    urls: Sequence[str],
    out_url: str,
    without: Mapping[str, Collection[str]],
    *,
    report: Callable[[str], None] = print_line,
) -> int:
    """Write the windows of ``urls`` that are of none of the names in ``without`` to OUT/train.

    without: names by unit, as of ``are_kept``. Returns how many windows are written. Shards that
    lie there are replaced. Errors as ``are_kept`` and ``split``.
    """
    out_url = parse_place(out_url)
    source = ShardSet.open(urls)
    _check_apart(source, out_url, [TRAIN])
    metas = _read_metas(source, report)
    kept = np.array(are_kept(metas, without))
    notes = _provenance(source)
    left = {meta.dataset for meta, keep in zip(metas, kept, strict=True) if keep}
    datasets = {name: note for name, note in notes["datasets"].items() if name in left}
    provenance = {
        **notes,
        "datasets": datasets,
        "without": {by: [*of] for by, of in without.items()},
    }
    division = _Division(np.where(kept, TRAIN, UNUSED), [TRAIN], source.labels)
    with locked_folder(out_url, instead="another folder to write to"):
        _write(source, out_url, division, True, provenance, report)
    report(f"{out_url}/{TRAIN}: {kept.sum():,} of {len(kept):,} windows")
    return int(kept.sum())


def _check_apart(source: ShardSet, out_url: str, written: Sequence[str]) -> None:
    for url in (out_url, *(f"{out_url}/{side}" for side in written)):
        check_apart(url, (folder.url for folder in source.folders))


def _read_metas(source: ShardSet, report: Callable[[str], None]) -> list[WindowMeta]:
    """The metas of all windows, in order."""
    progress = TaskProgress("read", source.windows, "windows", report)
    metas: list[WindowMeta] = []
    for block in read_ahead(
        lambda record: source.read_block(record, pictures=False), zip(range(len(source)))
    ):
        metas += block.metas
        if len(metas) < source.windows:
            progress.add(len(block))
    return metas


def _write(
    source: ShardSet,
    out_url: str,
    division: _Division,
    overwrite: bool,
    provenance: Mapping[str, Any],
    report: Callable[[str], None],
) -> None:
    """All folders, in the order of the source: they end with an index, or none does."""
    side_of, written, classes = division
    options: dict[str, Any] = {
        "rate_hz": source.index.rate_hz,
        "channels": source.index.channels,
        "units": source.index.units,
        "overwrite": overwrite,
        "provenance": provenance,
    }
    progress = TaskProgress("write", int(np.isin(side_of, written).sum()), "windows", report)
    if source.index.kind == "window":
        opening = partial(WindowShardWriter, **options)
        with finished_together(out_url, dict.fromkeys(written, opening)) as writers:
            _copy_windows(source, side_of, writers, progress)
        return
    opening_packed = partial(
        PackedShardWriter,
        teachers=source.teachers,
        labels=classes,
        sessions=source.by_sessions,
        **options,
    )
    with finished_together(out_url, dict.fromkeys(written, opening_packed)) as packed_writers:
        _copy_rows(source, side_of, classes, packed_writers, progress)


def _copy_windows(
    source: ShardSet,
    side_of: np.ndarray,
    writers: Mapping[str, WindowShardWriter],
    progress: TaskProgress,
) -> None:
    """Copy the records of window shards, one window each, to the writers of their sides."""
    records = np.flatnonzero(np.isin(side_of, list(writers))).tolist()
    read = read_ahead(source.read_record, zip(records))
    for record, members in zip(records, read, strict=True):
        writers[side_of[record]].copy({name: bytes(view) for name, view in members.items()})
        progress.add()


def _copy_rows(
    source: ShardSet,
    side_of: np.ndarray,
    classes: Sequence[str],
    writers: Mapping[str, PackedShardWriter],
    progress: TaskProgress,
) -> None:
    """Divide the blocks of packed shards, and write what each side has of them."""
    ids = {name: number for number, name in enumerate(classes)}
    # The last entry is that of NO_LABEL, -1, and of classes of the windows that are left out.
    table = np.array([*(ids.get(name, NO_LABEL) for name in source.labels), NO_LABEL])
    first = 0
    for block in read_ahead(source.read_block, zip(range(len(source)))):
        sides = side_of[first : first + len(block)]
        first += len(block)
        for side, writer in writers.items():
            rows = np.flatnonzero(sides == side)
            if len(rows):
                part = _with_teachers(block.take(rows), source.teachers)
                writer.write(replace(part, label=table[part.label]))
                progress.add(len(rows))


def _with_teachers(block: Block, teachers: Mapping[str, TeacherSpace]) -> Block:
    """The block with absent embeddings of the modalities that only other folders have."""
    lacking = {name: space for name, space in teachers.items() if name not in block.embeddings}
    none = {name: np.zeros((len(block), s.dim), np.float16) for name, s in lacking.items()}
    absent = {name: np.zeros(len(block), np.bool_) for name in lacking}
    return replace(
        block, embeddings={**block.embeddings, **none}, present={**block.present, **absent}
    )


def _provenance(source: ShardSet) -> dict[str, Any]:
    """What the folders were made from."""
    datasets: dict[str, Any] = {}
    for index in source.indexes:
        notes = index.provenance.get("datasets")
        datasets |= notes if isinstance(notes, dict) else {}
    sources = [
        {"url": folder.url, "provenance": index.provenance}
        for folder, index in zip(source.folders, source.indexes, strict=True)
    ]
    return {"datasets": datasets, "sources": sources}


def _write_sides(out_url: str, text: str) -> None:
    folder = Folder(out_url)
    with explain_write_errors(folder.url), folder.staging(SIDES_FILE) as path:
        path.write_text(text, encoding="utf-8")
