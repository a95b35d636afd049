"""A support set in the memory of one process: a ring that overwrites its oldest entries.

In a distributed run each rank holds one, all filled with the same gathered entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn import functional

from primus_scale.support.base import IMU, Neighbours, SupportEntries
from primus_scale.support.search import SearchBackend, make_search

# Each row of the searched matrix has one element more than its embedding: 0 where the entry
# answers queries of that modality, ABSENT where it does not. Queries have a 1 there, so that the
# inner product of an entry that may not answer falls below that of any that may (cosines are -1
# or more), and the ring is searched where it lies, without copying the entries that answer.
ABSENT = -4.0


class RingSupportSet:
    """Fulfils ``SupportSet`` with tensors allocated once.

    dims: width of the embeddings by modality. minimum_fill: entries it must hold before it answers.
    imu_answers: which entries answer an IMU query. ``multimodal`` means those that hold a
    teacher's embedding, since an IMU-only window asks in order to learn from its neighbours' video
    and text; ``all`` suits runs that use only the neighbours' IMU. backend: see ``search``.
    """

    def __init__(
        self,
        capacity: int,
        dims: Mapping[str, int],
        *,
        minimum_fill: int = 1,
        imu_answers: Literal["multimodal", "all"] = "multimodal",
        backend: SearchBackend = "faiss",
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= minimum_fill <= capacity:
            raise ValueError(
                f"support.minimum_fill is {minimum_fill}, which is not within 1 and "
                f"support.capacity ({capacity})"
            )
        if imu_answers == "multimodal" and set(dims) <= {IMU}:
            raise ValueError("a support set without teachers needs imu_answers='all'")
        self._capacity = capacity
        self._minimum_fill = minimum_fill
        self._dims = dict(dims)
        self._imu_answers = imu_answers
        self._search = make_search(backend, torch.device(device))
        self._added = 0  # entries since the start; the next one goes to place `added % capacity`
        self._uid = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._recording = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._keys = {
            name: torch.zeros(capacity, dim + 1, device=device) for name, dim in dims.items()
        }
        self._present = {
            name: torch.zeros(capacity, dtype=torch.bool, device=device) for name in dims
        }

    @property
    def capacity(self) -> int:
        """Entries it can hold."""
        return self._capacity

    @property
    def fill(self) -> int:
        """Entries it holds now."""
        return min(self._added, self._capacity)

    @property
    def dims(self) -> Mapping[str, int]:
        """Width of the embeddings by modality."""
        return self._dims

    def enqueue(self, entries: SupportEntries) -> None:
        """Add entries, oldest first; of more than the capacity only the last ones stay.

        Embeddings are stored L2-normalised in float32.
        """
        skipped = max(0, len(entries) - self._capacity)
        order = torch.arange(skipped, len(entries), device=self._uid.device)
        places = (self._added + order) % self._capacity
        self._uid[places] = entries.uid[skipped:]
        self._recording[places] = entries.recording[skipped:]
        for name in self._dims:
            self._present[name][places] = entries.present[name][skipped:]
        for name in self._dims:
            unit = functional.normalize(entries.embeddings[name][skipped:].detach().float(), dim=1)
            penalty = torch.where(self._answers(name, places), 0.0, ABSENT)
            self._keys[name][places] = torch.cat([unit, penalty[:, None]], dim=1)
        self._added += len(entries)

    def search(
        self, queries: torch.Tensor, k: int, exclude_uids: torch.Tensor, modality: str
    ) -> Neighbours:
        """The ``k`` entries most alike each query; see ``SupportSet.search``.

        Raises ValueError where ``k`` exceeds the minimum fill.
        """
        if k > self._minimum_fill:
            raise ValueError(
                f"objective.neighbours.k is {k}, more than support.minimum_fill "
                f"({self._minimum_fill}); raise the latter"
            )
        if self.fill < self._minimum_fill or len(queries) == 0:
            return Neighbours.none(len(queries), k, self._dims, self._uid.device)
        # A window may lie in the ring once for each epoch that has gone round: fetch that many
        # places more than needed, so that k are left when they are struck out.
        copies = self._most_copies(exclude_uids)
        unit = functional.normalize(queries.detach().float(), dim=1)
        unit = torch.cat([unit, torch.ones_like(unit[:, :1])], dim=1)
        scores, places = self._search(
            unit, self._keys[modality][: self.fill], min(k + copies, self.fill)
        )
        valid = (scores > ABSENT / 2) & (self._uid[places] != exclude_uids[:, None])
        if copies > 0:
            nearest = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
            scores, places, valid = (t.gather(1, nearest) for t in (scores, places, valid))
        return self._neighbours(scores, places, valid)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything it holds, as named tensors that share its memory."""
        state = {
            "added": torch.tensor(self._added),
            "uid": self._uid,
            "recording": self._recording,
        }
        for name in self._dims:
            state[f"keys.{name}"] = self._keys[name]
            state[f"present.{name}"] = self._present[name]
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore ``state_dict()``.

        Raises ValueError where the state is of another capacity or has other modalities or widths.
        """
        mine = self.state_dict()
        theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
        for name in sorted(mine.keys() | theirs.keys()):
            expected = tuple(mine[name].shape) if name in mine else "nothing"
            if theirs.get(name, "nothing") != expected:
                raise ValueError(
                    f"the saved support set holds {theirs.get(name, 'nothing')} as {name!r} where "
                    f"this run expects {expected}; resume with the same support.capacity, "
                    "objective.neighbours, encoder.ss_dim and teachers, or start in a new output"
                )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        self._added = int(state["added"])

    def _answers(self, modality: str, places: torch.Tensor) -> torch.Tensor:
        """Whether the entries at ``places`` answer queries of ``modality``, ``(n,)`` bool."""
        answers = self._present[modality][places]
        if modality == IMU and self._imu_answers == "multimodal":
            teachers = [self._present[name][places] for name in self._dims if name != IMU]
            answers = answers & torch.stack(teachers).any(dim=0)
        return answers

    def _most_copies(self, uids: torch.Tensor) -> int:
        """How often the most frequent of ``uids`` ``(B,)`` lies in the ring."""
        held = self._uid[: self.fill].sort().values
        uids = uids.contiguous()
        copies = torch.searchsorted(held, uids, right=True) - torch.searchsorted(held, uids)
        return int(copies.max())

    def _neighbours(
        self, scores: torch.Tensor, places: torch.Tensor, valid: torch.Tensor
    ) -> Neighbours:
        return Neighbours(
            uid=self._uid[places],
            recording=self._recording[places],
            age=(self._added - 1 - places) % self._capacity,
            score=scores,
            valid=valid,
            embeddings={name: self._keys[name][places, :dim] for name, dim in self._dims.items()},
            present={name: self._present[name][places] & valid for name in self._dims},
        )
