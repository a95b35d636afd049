"""The support set: a ring of past windows whose nearest neighbours supervise the current batch.

PRIMUS (arXiv 2411.15127, section 3) follows NNCLR (arXiv 2104.14548): the past window most alike
the current one stands in as a further positive. What a support set promises is here; where it
lives (in each process, or in a service) is up to the classes that fulfil it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch.nn import functional

from primus_scale.sample import IMU, Origin, fill_times, unknown_time
from primus_scale.support.keys import STORAGE, IndexKind
from primus_scale.support.search import SearchBackend

NO_NEIGHBOUR = -1  # uid, recording and age of a place that holds no neighbour
ROW_FIELDS = ("uid", "recording", "age", "score", "valid", "start_s")  # of Neighbours


class Exclusion(NamedTuple):
    """Which entries are no neighbours of the B windows that ask: see ``Origin.same_moment``."""

    origin: Origin
    within_s: float

    def at(self, rows: torch.Tensor) -> Exclusion:
        """That of some of the windows."""
        return Exclusion(self.origin.at(rows), self.within_s)

    def covers(self, entries: Origin) -> torch.Tensor:
        """Whether it holds for entries ``(B, n)``, or for the same ``(n,)`` each; ``(B, n)``."""
        asking = Origin(*(column[:, None] for column in self.origin))
        return asking.same_moment(entries, self.within_s)


@dataclass(frozen=True)
class SupportSpec:
    """What a support set is, wherever it lives.

    dims: width of the embeddings by modality. minimum_fill: entries it must hold before it
    answers. imu_answers: which entries answer an IMU query. ``multimodal`` means those that hold a
    teacher's embedding, since an IMU-only window asks in order to learn from its neighbours' video
    and text; ``all`` suits runs that use only the neighbours' IMU. storage: precision in which
    unit vectors are held. queried: modalities that are searched, None for all; the others need no
    index. index, backend: see ``build_index`` and ``make_search``. wait: see
    ``build_index``. ValueError where the values do not fit together.
    """

    capacity: int
    dims: Mapping[str, int]
    minimum_fill: int = 1
    imu_answers: Literal["multimodal", "all"] = "multimodal"
    storage: Literal["float32", "float16"] = "float32"
    queried: tuple[str, ...] | None = None
    index: IndexKind = "flat"
    backend: SearchBackend = "faiss"
    wait: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.minimum_fill <= self.capacity:
            raise ValueError(
                f"support.minimum_fill is {self.minimum_fill}, which is not within 1 and "
                f"support.capacity ({self.capacity})"
            )
        if self.imu_answers == "multimodal" and set(self.dims) <= {IMU}:
            raise ValueError("a support set without teachers needs imu_answers='all'")

    @property
    def memory(self) -> int:
        """Bytes of all entries together, without an index: keys, and what is known of each."""
        wide = sum(dim + 1 for dim in self.dims.values()) * STORAGE[self.storage].itemsize
        return self.capacity * (wide + len(self.dims) + 4 * 8)  # number, uid, recording, start

    def prepare(self, queries: torch.Tensor, k: int, added: int) -> torch.Tensor | None:
        """Queries ``(B, D)`` at unit length in float32, to be asked of a set that may answer.

        None where it may not yet, since only ``added`` entries were ever added, or where nothing is
        asked. ValueError where ``k`` exceeds the minimum fill.
        """
        if k > self.minimum_fill:
            raise ValueError(
                f"objective.neighbours.k is {k}, more than support.minimum_fill "
                f"({self.minimum_fill}); raise the latter"
            )
        if added < self.minimum_fill or len(queries) == 0:
            return None
        return functional.normalize(queries.detach().float(), dim=1)


@dataclass(frozen=True)
class SupportEntries:
    """Windows to add to a support set, oldest first.

    uid and recording ``(n,)`` int64; embeddings ``(n, D)`` by modality (the teachers' and
    ``imu``); present ``(n,)`` bool by modality, False where an entry lacks that embedding;
    start_s ``(n,)`` float64, see ``Origin``.
    """

    uid: torch.Tensor
    recording: torch.Tensor
    embeddings: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    start_s: torch.Tensor = field(default_factory=unknown_time)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", fill_times(self.start_s, self.uid))

    def __len__(self) -> int:
        return int(self.uid.shape[0])

    def at(self, rows: torch.Tensor) -> SupportEntries:
        """The entries at ``rows``, a mask ``(n,)`` bool or numbers ``(m,)`` int64."""
        return SupportEntries(
            self.uid[rows],
            self.recording[rows],
            {name: vectors[rows] for name, vectors in self.embeddings.items()},
            {name: present[rows] for name, present in self.present.items()},
            self.start_s[rows],
        )


@dataclass(frozen=True)
class Neighbours:
    """The K nearest entries of B queries, nearest first.

    valid ``(B, K)`` bool says where there is a neighbour at all. uid, recording and age
    ``(B, K)`` int64, age in entries that were added after the neighbour; start_s ``(B, K)``
    float64; score ``(B, K)`` float32, cosine of query and neighbour. embeddings ``(B, K, D)``
    float32 by modality, L2-normalised, and present ``(B, K)`` bool by modality. All but valid mean
    nothing where valid is False.
    """

    uid: torch.Tensor
    recording: torch.Tensor
    age: torch.Tensor
    score: torch.Tensor
    valid: torch.Tensor
    embeddings: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    start_s: torch.Tensor = field(default_factory=unknown_time)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", fill_times(self.start_s, self.uid))

    @property
    def origin(self) -> Origin:
        """Which windows they are."""
        return Origin(self.uid, self.recording, self.start_s)

    @classmethod
    def none(
        cls, rows: int, k: int, dims: Mapping[str, int], device: torch.device | str
    ) -> Neighbours:
        """``k`` invalid neighbours for each of ``rows`` queries."""
        nothing = torch.full((rows, k), NO_NEIGHBOUR, dtype=torch.int64, device=device)
        absent = torch.zeros(rows, k, dtype=torch.bool, device=device)
        return cls(
            uid=nothing,
            recording=nothing.clone(),
            age=nothing.clone(),
            score=torch.zeros(rows, k, device=device),
            valid=absent,
            embeddings={
                name: torch.zeros(rows, k, dim, device=device) for name, dim in dims.items()
            },
            present={name: absent.clone() for name in dims},
        )

    def to(self, device: torch.device | str) -> Neighbours:
        """The same on ``device``."""
        return replace(
            self,
            **{name: getattr(self, name).to(device) for name in ROW_FIELDS},
            embeddings={name: vectors.to(device) for name, vectors in self.embeddings.items()},
            present={name: rows.to(device) for name, rows in self.present.items()},
        )

    def put(self, rows: torch.Tensor, found: Neighbours) -> None:
        """Write the neighbours ``found`` into the places ``rows`` ``(n,)`` int64, in place."""
        for name in ROW_FIELDS:
            getattr(self, name)[rows] = getattr(found, name)
        for name in self.embeddings:
            self.embeddings[name][rows] = found.embeddings[name]
            self.present[name][rows] = found.present[name]


class SupportSet(Protocol):
    """What every home of the support set does; all ranks see the same content.

    Every rank calls ``enqueue``, ``flush``, ``saved`` and ``load`` at the same time.
    """

    @property
    def spec(self) -> SupportSpec:
        """What it is."""

    def start_search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Begin a search, and return what waits for its answer; see ``search``.

        A home that may answer while the caller computes does so from what it holds meanwhile.
        """

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Neighbours:
        """The ``k`` entries whose ``modality`` embedding is most alike each query.

        queries ``(B, D)``; exclude: of the windows that ask. Only entries that hold the modality
        are returned, and none before the set holds its minimum. ValueError where ``k`` exceeds
        that minimum.
        """

    def enqueue(self, entries: SupportEntries) -> None:
        """Add entries, the same on every rank; the oldest are evicted first."""

    def flush(self) -> None:
        """Return when all that was enqueued is held."""

    def save(self, folder: Path) -> None:
        """Write everything held to files in ``folder``; one rank calls it, after ``flush``."""

    def saved(self, folder: Path) -> None:
        """Know that what was last saved lies in ``folder`` from now on; before older ones go."""

    def load(self, folder: Path) -> None:
        """Take in what ``save`` wrote, whatever home it was.

        FileNotFoundError where files are missing, ValueError where they do not fit.
        """

    def figures(self) -> dict[str, float]:
        """What to watch, by name: ``fill``, the entries held, and what is the home's own."""

    def close(self) -> None:
        """Let go of threads and processes."""
