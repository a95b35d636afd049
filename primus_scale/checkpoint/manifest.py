"""The manifest of a checkpoint: its run and step, and the size and sha256 of each of its files.

    {"schema": 1, "progress": {"step": 250, ...}, "world": 8, "identity": {...},
     "files": {"state/mp_rank_00_model_states.pt": {"size": 123, "sha256": "..."}, ...},
     "sha256": "..."}                                       # of all of the above

A file is whole if it has the size and hash of its entry. A checkpoint is *whole* if its manifest
and all its files are. Anybody who can write to ``train.storage`` can write a manifest with a right
hash, so all its values are checked: names must lie below ``FOLDERS``, numbers must be numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from primus_scale.engine.zero_state import STATE
from primus_scale.storage.foreign import parse_json
from primus_scale.storage.names import check_name, path_in, quoted

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
SUPPORT, ENCODER = "support", "encoder"
FOLDERS = (STATE, SUPPORT, ENCODER)  # of a checkpoint
MOST_BYTES = 64 * 2**20  # of a manifest: of some 500,000 files

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT = re.compile(r"step-(\d{8}|[1-9]\d{8,15})")
_MOST = 2**53  # of a number: readers of JSON disagree on larger ones


@dataclass(frozen=True)
class StepCounts:
    """How far a run is: steps done, how many of them were skipped, and how many last in a row.

    A skipped step changes no weights. The position in the data follows from ``step``
    (``Schedule.batch_rows``).
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


def checkpoint_name(progress: StepCounts) -> str:
    """The folder name of the checkpoint of a step."""
    return f"step-{progress.step:08d}"


def sort_checkpoints(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are names of checkpoints' folders, oldest first."""
    found = {name for name in names if _CHECKPOINT.fullmatch(name)}
    return sorted(found, key=lambda name: (len(name), name))


def dump_manifest(manifest: Mapping[str, Any]) -> str:
    """The text of a manifest file."""
    sealed = {"schema": SCHEMA_VERSION, **manifest}
    return json.dumps({**sealed, "sha256": _digest(sealed)}, indent=1) + "\n"


def parse_manifest(text: str | bytes, checkpoint: str, place: str) -> dict[str, Any]:
    """The manifest of the checkpoint folder ``checkpoint`` from its text.

    place: path or URL of the manifest. ValueError naming it where a run would not write this.
    """
    manifest = parse_json(text, place)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{place} is not of schema {SCHEMA_VERSION}, which this program reads")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise ValueError(f"{place} is not what was written")
    if problem := _problem(manifest, checkpoint):
        raise ValueError(f"{place}: {problem}")
    _check_files(manifest["files"], place)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in ``folder``; OSError, or ValueError where it is damaged."""
    path = folder / MANIFEST
    check_size(path.stat().st_size, str(path))
    return parse_manifest(path.read_bytes(), folder.name, str(path))


def check_size(size: int, place: str) -> None:
    """ValueError where the manifest at ``place`` is too large to be one."""
    if size > MOST_BYTES:
        raise ValueError(f"{place} has {size:,} bytes, a manifest has at most {MOST_BYTES:,}")


def file_entry(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def check_file(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Check the file ``name`` of the checkpoint in ``folder`` against its entry in the manifest.

    ValueError where it does not fit, or is reached by a link out of the folder; OSError where it
    is missing.
    """
    path = path_in(folder, name, str(folder / MANIFEST))
    if path.stat().st_size != entry["size"] or file_entry(path) != entry:
        raise ValueError(f"{path} is not what was written")


def flush(paths: Iterable[Path]) -> None:
    """Flush files, and the names in folders, to disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _problem(manifest: Mapping[str, Any], checkpoint: str) -> str | None:
    """The first field that no run would write so; None where there is none."""
    known = asdict(StepCounts())
    progress, world = manifest.get("progress"), manifest.get("world")
    if not isinstance(progress, dict) or progress.keys() != known.keys():
        return f"field progress must have {', '.join(each.name for each in fields(StepCounts))}"
    for name, number in progress.items():
        if not _is_count(number):
            return f"field progress.{name} is {quoted(number)}, no count"
    if checkpoint_name(StepCounts(**progress)) != checkpoint:
        return f"it is of step {progress['step']}"
    if not _is_count(world) or world == 0:
        return f"field world is {quoted(world)}, no number of ranks"
    if not isinstance(manifest.get("identity"), dict):
        return "field identity is no object"
    if not isinstance(manifest.get("files"), dict) or not manifest["files"]:
        return "field files names no file"
    return None


def _check_files(files: Mapping[str, Any], place: str) -> None:
    """ValueError where an entry has a wrong form, or a name is not in one of ``FOLDERS``."""
    for name, entry in files.items():
        folder, *inside = check_name(name, f"{place}: field files").split("/")
        if folder not in FOLDERS or not inside:
            allowed = ", ".join(FOLDERS)
            raise ValueError(f"{place}: field files: {quoted(name)} lies in none of {allowed}")
        parents = ("/".join((folder, *inside[:depth])) for depth in range(1, len(inside)))
        if any(parent in files for parent in parents):
            raise ValueError(f"{place}: field files: {quoted(name)} lies in another file")
        sound = (
            isinstance(entry, dict)
            and entry.keys() == {"size", "sha256"}
            and _is_count(entry["size"])
            and isinstance(entry["sha256"], str)
            and _SHA256.fullmatch(entry["sha256"])
        )
        if not sound:
            raise ValueError(f"{place}: field files: {quoted(name)} has no size and sha256")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
