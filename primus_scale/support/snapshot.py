"""The files of a snapshot of the ring: one for each part, safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from primus_scale.sample import Origin
from primus_scale.support.base import SupportSpec
from primus_scale.support.keys import STORAGE

# Columns of a snapshot, in addition to the keys.
COLUMNS = {
    "number": torch.int64,
    **dict.fromkeys(Origin._fields, torch.int64),
    "start_s": torch.float64,
}


def save_empty(spec: SupportSpec, part: int, parts: int, folder: Path, added: int) -> None:
    """Write the file of an empty part; ``added`` entries were ever added to the whole ring."""
    state = {"added": torch.tensor(added)}
    state |= {name: torch.empty(0, dtype=dtype) for name, dtype in COLUMNS.items()}
    for name, dim in spec.dims.items():
        state[f"keys.{name}"] = torch.empty(0, dim, dtype=STORAGE[spec.storage])
        state[f"present.{name}"] = torch.empty(0, dtype=torch.bool)
    # Copies, since safetensors refuses tensors that share memory.
    save_file({name: each.clone() for name, each in state.items()}, file_of(folder, part, parts))


def file_of(folder: Path, part: int, parts: int) -> Path:
    """The file of a part."""
    return folder / f"part-{part:05d}-of-{parts:05d}.safetensors"


def snapshot_files(folder: Path) -> list[Path]:
    """The files of a snapshot; FileNotFoundError where there are none, or one is missing."""
    files = sorted(folder.glob("part-*-of-*.safetensors"))
    if not files or len(files) != int(files[0].stem.rpartition("-")[2]):
        raise FileNotFoundError(
            f"{folder} holds {len(files)} parts of a support set, which is not all of one; restore "
            "the checkpoint from a copy"
        )
    return files


def check_columns(path: Path, dims: Mapping[str, int]) -> None:
    """Raise ValueError where a file has other modalities or widths, or lacks a column."""
    with safe_open(path, framework="pt") as file:
        lacking = [name for name in COLUMNS if name not in file.keys()]  # noqa: SIM118
        theirs = {
            name.removeprefix("keys."): file.get_slice(name).get_shape()[1]
            for name in file.keys()  # noqa: SIM118
            if name.startswith("keys.")
        }
    if lacking:
        raise ValueError(
            f"{path} has no column {lacking[0]}: an earlier version of primus-scale wrote it; "
            "resume with that version, or start in a new output"
        )
    if theirs != dict(dims):
        raise ValueError(
            f"{path} holds embeddings of widths {theirs} where this run expects {dict(dims)}; "
            "resume with the same objective.neighbours, encoder.ss_dim and teachers, or start in a "
            "new output"
        )
