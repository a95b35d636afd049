"""The manifest of a checkpoint: what it is of, and the size and sha256 of each of its files.

    {"schema": 1, "progress": {"step": 250, ...}, "world": 8, "identity": {...},
     "files": {"state/mp_rank_00_model_states.pt": {"size": 123, "sha256": "..."}, ...},
     "sha256": "..."}                                       # of all of the above

A file is what was written if it has the size and hash of its entry; a checkpoint is whole if all
files are, and the manifest is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


def dump_manifest(manifest: Mapping[str, Any]) -> str:
    """The text of a manifest file."""
    sealed = {"schema": SCHEMA_VERSION, **manifest}
    return json.dumps({**sealed, "sha256": _digest(sealed)}, indent=1) + "\n"


def parse_manifest(text: str | bytes, place: str) -> dict[str, Any]:
    """A manifest from its text; ValueError naming ``place`` where it is not what was written."""
    manifest = json.loads(text)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{place} is not of schema {SCHEMA_VERSION}, which this program reads")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise ValueError(f"{place} is not what was written")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in ``folder``; OSError, or ValueError where it is damaged."""
    path = folder / MANIFEST
    return parse_manifest(path.read_bytes(), str(path))


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def check_file(path: Path, entry: Mapping[str, Any]) -> None:
    """ValueError where a file does not fit its entry in a manifest; OSError where it is missing."""
    if fingerprint(path) != entry:
        raise ValueError(f"{path} is not what was written")


def flush(paths: Iterable[Path]) -> None:
    """Have files, and the names in folders, on disk before going on."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
