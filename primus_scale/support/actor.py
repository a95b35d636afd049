"""The class that runs in an actor of the support service: a part of the ring.

Its methods take and return numpy arrays, which Ray transfers without copying them. This module does
not import Ray: ``service_actors`` makes actors of the class.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from primus_scale.sample import Origin
from primus_scale.support.base import Exclusion, SupportEntries, SupportSpec
from primus_scale.support.part import Candidates, Fetched, RingPart
from primus_scale.support.search import set_threads

# Columns of the origin, and the other fields of ``Exclusion``.
PackedExclusion = tuple[list[np.ndarray], float, Literal["own", "other"] | None]


class Status(NamedTuple):
    """State of an actor.

    instance: id of its process; a restarted actor has another one, and holds no entries. added:
    entries ever added to the whole ring, as far as the actor knows. held: entries it holds.
    building: see ``KeyIndex.is_building``. where: host and process.
    """

    instance: str
    added: int
    held: int
    building: bool
    where: str


class SupportActor:
    """Part ``part`` of ``parts`` of the support set, computing with ``threads`` CPU threads."""

    def __init__(self, spec: SupportSpec, part: int, parts: int, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        set_threads(threads)
        self._part = RingPart(spec, part, parts, device)
        self._device = device
        self._instance = uuid.uuid4().hex
        self._where = f"{socket.gethostname()}, process {os.getpid()}"

    def status(self) -> Status:
        """The state of this actor."""
        part = self._part
        return Status(self._instance, part.added, part.held, part.is_building, self._where)

    def search(
        self, queries: np.ndarray, k: int, exclude: PackedExclusion, modality: str, added: int
    ) -> tuple[Candidates, Status]:
        """See ``RingPart.search``; arrays instead of tensors."""
        columns, within_s, session = exclude
        origin = Origin(*(to_tensor(column, self._device) for column in columns))
        asked = to_tensor(queries, self._device), k, Exclusion(origin, within_s, session)
        found = self._part.search(*asked, modality, added)
        return Candidates(*map(to_array, found)), self.status()

    def fetch(self, places: np.ndarray, numbers: np.ndarray) -> Fetched:
        """See ``RingPart.fetch``; arrays instead of tensors."""
        found = self._part.fetch(to_tensor(places, self._device), to_tensor(numbers, self._device))
        return Fetched(
            embeddings=to_arrays(found.embeddings),
            present=to_arrays(found.present),
            held=to_array(found.held),
        )

    def enqueue(self, entries: dict[str, Any], numbers: np.ndarray, added: int) -> Status:
        """Add entries, as ``pack_entries`` packs them; see ``RingPart.enqueue``."""
        unpacked = SupportEntries(
            **{name: to_tensor(entries[name], self._device) for name in Origin._fields},
            embeddings={n: to_tensor(x, self._device) for n, x in entries["embeddings"].items()},
            present={name: to_tensor(x, self._device) for name, x in entries["present"].items()},
        )
        self._part.enqueue(unpacked, to_tensor(numbers, self._device), added)
        return self.status()

    def save(self, folder: str, added: int) -> Status:
        """Write the part to ``folder`` of the run. added: entries ever added to the whole ring."""
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"a support actor on {self._where} does not see {folder}; set output to storage "
                "that all machines share"
            )
        self._part.save(Path(folder), added)
        return self.status()

    def load(self, folder: str) -> Status:
        """Load the entries of this part from the snapshot in ``folder``."""
        self._part.load(Path(folder))
        return self.status()


def pack_entries(entries: SupportEntries) -> dict[str, Any]:
    """Entries as nested arrays."""
    return {
        **{name: to_array(column) for name, column in entries.origin._asdict().items()},
        "embeddings": to_arrays(entries.embeddings),
        "present": to_arrays(entries.present),
    }


def pack_exclusion(exclude: Exclusion) -> PackedExclusion:
    """An exclusion with arrays for tensors."""
    return [to_array(column) for column in exclude.origin], exclude.within_s, exclude.session


def to_array(tensor: torch.Tensor) -> Any:
    """A tensor as a numpy array; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def to_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Tensors by name as numpy arrays."""
    return {name: to_array(tensor) for name, tensor in tensors.items()}


def to_tensor(array: Any, device: torch.device | str = "cpu") -> torch.Tensor:
    """A copy of a numpy array as a tensor: arrays from Ray are read-only."""
    return torch.tensor(array, device=device)
