"""Build the index that finds neighbours among the keys of a modality."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from primus_scale.config import SupportConfig
from primus_scale.support.ivf import FLAT_BELOW, IvfIndex
from primus_scale.support.keys import FlatIndex, IndexKind, KeyIndex, Keys, Learning
from primus_scale.support.search import SearchBackend, import_faiss
from primus_scale.support.segments import SegmentIndex

SAVED = "index."  # names of an index's tensors in a snapshot begin so

# Entries up to which brute force in device memory is chosen: it reads 1 GB of keys in less than a
# millisecond on a recent GPU. Not measured.
FLAT_BELOW_ON_CUDA = 2**20


def choose_index(kind: IndexKind, places: int, device: torch.device) -> tuple[IndexKind, str]:
    """The index for a part of ``places`` entries on ``device``, and why; ``auto`` is decided."""
    if kind != "auto":
        return kind, f"support.index={kind}"
    if device.type != "cuda":
        name, limit = "a CPU", FLAT_BELOW
    else:
        name, limit = "a GPU", FLAT_BELOW_ON_CUDA
        if places > limit and import_faiss().get_num_gpus() == 0:
            return (
                "flat",
                "support.index=auto: flat, as this build of faiss has none on GPUs",
            )
    chosen: IndexKind = "ivf" if places > limit else "flat"
    side = "above" if places > limit else "not above"
    why = f"{places:,} entries are {side} the {limit:,} from which ivf pays on {name}"
    return chosen, f"support.index=auto: {chosen}, since {why}"


def describe_index(config: SupportConfig, device: torch.device) -> str:
    """A line for the start of a run that computes on ``device``: which index, and why."""
    if config.home == "service":
        device = torch.device("cuda" if config.gpus_per_actor else "cpu")
    parts = config.actors if config.home == "service" else 1
    return choose_index(config.index, -(-config.capacity // parts), device)[1]


def build_index(
    kind: IndexKind, keys: Keys, backend: SearchBackend, *, learning: Learning
) -> KeyIndex:
    """The index ``kind`` over ``keys``, which are in the memory of a CPU or a CUDA device.

    learning: when approximate indexes are built; until then searches use brute force. With
    "at_once" and "on_time" the same calls give the same answers; on a GPU both build at once.
    ValueError where the installed FAISS does not have the index on that device.
    """
    kind, _ = choose_index(kind, len(keys.matrix), keys.matrix.device)
    if kind == "flat":
        return FlatIndex(keys, backend)
    if keys.matrix.is_cuda or kind == "cagra":
        return SegmentIndex(keys, kind, wait=learning != "when_ready")
    return IvfIndex(keys, learning=learning)


def index_state(indexes: Mapping[str, KeyIndex]) -> dict[str, torch.Tensor]:
    """Tensors from which ``restore_indexes`` continues, for a snapshot; empty for most kinds.

    An index that is used from a fixed row on continues as if there had been no interruption. The
    others are built again.
    """
    return {
        f"{SAVED}{modality}.{name}": tensor
        for modality, index in indexes.items()
        if isinstance(index, IvfIndex) and index.resumes
        for name, tensor in index.state().items()
    }


def restore_indexes(indexes: Mapping[str, KeyIndex], saved: Mapping[str, torch.Tensor]) -> None:
    """Continue from ``index_state``, once the keys are loaded that belong to it."""
    for modality, index in indexes.items():
        prefix = f"{SAVED}{modality}."
        state = {n.removeprefix(prefix): x for n, x in saved.items() if n.startswith(prefix)}
        if state and isinstance(index, IvfIndex) and index.resumes:
            index.restore(state)
