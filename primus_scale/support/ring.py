"""A support set in the memory of one process, the default: the whole ring as one part.

In a distributed run each rank holds one, and all get the same gathered entries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from primus_scale.sample import Origin
from primus_scale.support.base import Exclusion, Neighbours, SupportEntries, SupportSpec
from primus_scale.support.part import RingPart


class RingSupportSet:
    """Implements ``SupportSet`` with tensors on ``device``."""

    def __init__(self, spec: SupportSpec, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        self._device = torch.device(device)
        self._part = RingPart(spec, device=device)

    @property
    def fill(self) -> int:
        """The number of entries it holds."""
        return self._part.held

    def start_search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Search when the result is called, not before: it then finds what ``search`` finds."""
        return lambda: self.search(queries, k, exclude, modality)

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Neighbours:
        """The ``k`` entries most similar to each query; see ``SupportSet.search``."""
        added = self._part.added
        unit = self.spec.prepare(queries, k, added)
        if unit is None:
            return Neighbours.none(len(queries), k, self.spec.dims, self._device)
        found = self._part.search(unit, k, exclude, modality, added)
        fetched = self._part.fetch(found.place.flatten(), found.number.flatten())
        valid = found.number >= 0
        return Neighbours(
            **{name: getattr(found, name) for name in Origin._fields},
            age=added - 1 - found.number,
            score=found.score,
            valid=valid,
            embeddings={
                name: vectors.float().view(*valid.shape, -1)
                for name, vectors in fetched.embeddings.items()
            },
            present={
                name: present.view(valid.shape) & valid for name, present in fetched.present.items()
            },
        )

    def enqueue(self, entries: SupportEntries) -> None:
        """Add entries, oldest first; of more entries than the capacity only the last are kept."""
        first, added = self._part.added, self._part.added + len(entries)
        numbers = torch.arange(first, added, device=self._device)
        self._part.enqueue(entries, numbers, added)

    def flush(self) -> None:
        """Nothing to wait for."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All entries, as named tensors."""
        return self._part.state_dict()

    def save(self, folder: Path) -> None:
        """Write all entries to a file in ``folder``."""
        self._part.save(folder, self._part.added)

    def saved(self, folder: Path) -> None:
        """Nothing to note: the ring has no process of its own that could restart."""

    def load(self, folder: Path) -> None:
        """Load the entries that ``save`` wrote; see ``SupportSet.load``."""
        self._part.load(folder)

    def figures(self) -> dict[str, float]:
        """``fill``, the entries held; ``learning``, 1 while an index is being built."""
        return {"fill": self.fill, "learning": self._part.is_building}

    def close(self) -> None:
        """Nothing to end."""
