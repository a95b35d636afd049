"""The support set: a ring of past windows whose nearest neighbours supervise the current batch.

PRIMUS (arXiv 2411.15127, section 3) follows NNCLR (arXiv 2104.14548): the past window that is most
similar to the current one is a further positive. This module has the interface ``SupportSet`` and
its data types. ``ring`` implements it in each process, ``service`` in Ray actors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch.nn import functional

from primus_scale.sample import IMU, Origin, fill_times, unknown_time
from primus_scale.support.keys import STORAGE, IndexKind, Learning
from primus_scale.support.search import SearchBackend

NO_NEIGHBOUR = -1  # uid, recording, session and age where there is no neighbour
ROW_FIELDS = (*Origin._fields, "age", "score", "valid")  # of Neighbours


class Exclusion(NamedTuple):
    """Entries that cannot be neighbours of B querying windows.

    origin ``(B,)`` and within_s: entries of a window's moment, see ``Origin.same_moment``. session:
    also all entries of the window's ``own`` session, or all of ``other`` sessions.
    """

    origin: Origin
    within_s: float
    session: Literal["own", "other"] | None = None

    def at(self, rows: torch.Tensor) -> Exclusion:
        """The exclusion of the windows at ``rows``."""
        return self._replace(origin=self.origin.at(rows))

    def covers(self, entries: Origin) -> torch.Tensor:
        """Which entries are excluded, ``(B, n)`` bool.

        entries ``(B, n)``: those of each window, or ``(n,)``: the same for all windows.
        """
        querying = Origin(*(column[:, None] for column in self.origin))
        excluded = querying.same_moment(entries, self.within_s)
        if self.session == "own":
            excluded |= querying.session == entries.session
        elif self.session == "other":
            excluded |= querying.session != entries.session
        return excluded


@dataclass(frozen=True)
class SupportSpec:
    """Settings of a support set, in a process or in a service.

    dims: width of the embeddings by modality. minimum_fill: entries it must hold before a search
    finds neighbours. imu_answers: entries that an IMU query may find. ``multimodal``: those with a
    teacher's embedding, since a window with IMU only is to learn from its neighbours' video and
    text. ``all``: every entry, for runs that use only the neighbours' IMU. storage: precision of
    the stored vectors. queried: modalities that are searched, None for all; the others need no
    index. index, learning: see ``build_index``. backend: see ``make_search``. ValueError where the
    values do not fit together.
    """

    capacity: int
    dims: Mapping[str, int]
    minimum_fill: int = 1
    imu_answers: Literal["multimodal", "all"] = "multimodal"
    storage: Literal["float32", "float16"] = "float32"
    queried: tuple[str, ...] | None = None
    index: IndexKind = "auto"
    backend: SearchBackend = "faiss"
    learning: Learning = "at_once"

    def __post_init__(self) -> None:
        if not 1 <= self.minimum_fill <= self.capacity:
            raise ValueError(
                f"support.minimum_fill is {self.minimum_fill}, which is not from 1 to "
                f"support.capacity ({self.capacity})"
            )
        if self.imu_answers == "multimodal" and set(self.dims) <= {IMU}:
            raise ValueError("a support set without teachers needs imu_answers='all'")

    @property
    def memory(self) -> int:
        """Bytes of all entries, without an index: keys and the data of each entry."""
        keys = sum(dim + 1 for dim in self.dims.values()) * STORAGE[self.storage].itemsize
        return self.capacity * (keys + len(self.dims) + 5 * 8)  # number, and the origin

    def prepare(self, queries: torch.Tensor, k: int, added: int) -> torch.Tensor | None:
        """Queries ``(B, D)`` for a search: float32, L2-normalised.

        None where there is nothing to search: no queries, or fewer than ``minimum_fill`` entries.
        added: entries ever added to the set. ValueError where ``k`` exceeds the minimum fill.
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

    uid, recording and session ``(n,)`` int64; embeddings ``(n, D)`` by modality (the teachers' and
    ``imu``); present ``(n,)`` bool by modality, False where an entry lacks that embedding;
    start_s ``(n,)`` float64, see ``Origin``.
    """

    uid: torch.Tensor
    recording: torch.Tensor
    session: torch.Tensor
    embeddings: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    start_s: torch.Tensor = field(default_factory=unknown_time)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", fill_times(self.start_s, self.uid))

    def __len__(self) -> int:
        return int(self.uid.shape[0])

    @property
    def origin(self) -> Origin:
        """Which windows the entries are."""
        return Origin(self.uid, self.recording, self.session, self.start_s)

    def at(self, rows: torch.Tensor) -> SupportEntries:
        """The entries at ``rows``, a mask ``(n,)`` bool or numbers ``(m,)`` int64."""
        return SupportEntries(
            self.uid[rows],
            self.recording[rows],
            self.session[rows],
            {name: vectors[rows] for name, vectors in self.embeddings.items()},
            {name: present[rows] for name, present in self.present.items()},
            self.start_s[rows],
        )


@dataclass(frozen=True)
class Neighbours:
    """The K nearest entries of B queries, nearest first.

    valid ``(B, K)`` bool: False where no neighbour was found; the other fields have no meaning
    there. uid, recording, session and age ``(B, K)`` int64. age: number of entries that were added
    after the neighbour. start_s ``(B, K)`` float64. score ``(B, K)`` float32: cosine of query and
    neighbour. embeddings ``(B, K, D)`` float32 by modality, L2-normalised; present ``(B, K)`` bool
    by modality.
    """

    uid: torch.Tensor
    recording: torch.Tensor
    session: torch.Tensor
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
        """Identity and time of the neighbours."""
        return Origin(self.uid, self.recording, self.session, self.start_s)

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
            session=nothing.clone(),
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
        """Set the neighbours of the queries ``rows`` ``(n,)`` int64 to ``found``, in place."""
        for name in ROW_FIELDS:
            getattr(self, name)[rows] = getattr(found, name)
        for name in self.embeddings:
            self.embeddings[name][rows] = found.embeddings[name]
            self.present[name][rows] = found.present[name]


class SupportSet(Protocol):
    """The interface of a support set. All ranks see the same entries.

    Every rank calls ``enqueue``, ``flush``, ``saved`` and ``load`` at the same time.
    """

    @property
    def spec(self) -> SupportSpec:
        """The settings of the set."""

    def start_search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Start a search; calling the result waits for the neighbours. Arguments as ``search``.

        A service may search while the caller computes, and then sees the entries held meanwhile.
        """

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Neighbours:
        """The ``k`` entries whose ``modality`` embedding is most similar to each query.

        queries ``(B, D)``; exclude: entries that are no neighbours of them. Only entries with that
        modality are found, and none before the set holds ``minimum_fill`` entries. Where all other
        sessions are excluded, the search is exact with every index. ValueError where ``k`` exceeds
        ``minimum_fill``.
        """

    def enqueue(self, entries: SupportEntries) -> None:
        """Add entries, the same on every rank; the oldest are evicted first."""

    def flush(self) -> None:
        """Wait until the set holds all entries that were enqueued."""

    def save(self, folder: Path) -> None:
        """Write all entries to files in ``folder``; one rank calls it, after ``flush``."""

    def saved(self, folder: Path) -> None:
        """Note that the files of the last ``save`` are now in ``folder``.

        It is called before older checkpoints are deleted. A service fills restarted actors from
        ``folder``.
        """

    def load(self, folder: Path) -> None:
        """Load the entries that ``save`` wrote, from a set in a process or in a service.

        FileNotFoundError where files are missing, ValueError where they do not fit.
        """

    def figures(self) -> dict[str, float]:
        """Numbers for the log, by name: ``fill``, the entries held, and others of the class."""

    def close(self) -> None:
        """End threads and processes."""
