"""One part of the ring of past windows: all of it in one process, or what one actor holds.

Three numbers say where an entry is:

    number   counts all entries in the order in which they are added, from 0
    slot     its row in the whole ring: ``number % capacity``
    place    its row in the part that holds it: slot ``i`` is place ``i // parts`` of part
             ``i % parts``

So every part knows by itself which entry overwrites which. An entry is dropped exactly when
``capacity`` later entries have been added, also if some of those were lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from primus_scale.sample import IMU, Origin
from primus_scale.support.base import (
    NO_NEIGHBOUR,
    Exclusion,
    SupportEntries,
    SupportSpec,
)
from primus_scale.support.index import (
    SAVED,
    build_index,
    choose_index,
    index_state,
    restore_indexes,
)
from primus_scale.support.keys import (
    ABSENT,
    NO_PLACE,
    STORAGE,
    SURPLUS,
    ExclusionTest,
    Keys,
    rows_by_session,
    search_allowed,
)
from primus_scale.support.snapshot import COLUMNS, check_columns, file_of, snapshot_files

MOST_CANDIDATES = 2048  # of one query: FAISS finds no more on a GPU
KEYS_PER_CANDIDATE = 16  # with fewer keys for each candidate, brute force is quicker
LOADED_AT_ONCE = 2**16  # entries of a snapshot that are loaded at a time


class Candidates(NamedTuple):
    """The K best entries of a part for B queries; each ``(B, K)``, best first.

    score float32; number, place, uid, recording, session int64; start_s float64. Where there are
    fewer, number is NO_NEIGHBOUR and score -inf.
    """

    score: torch.Tensor
    number: torch.Tensor
    place: torch.Tensor
    uid: torch.Tensor
    recording: torch.Tensor
    session: torch.Tensor
    start_s: torch.Tensor


class Fetched(NamedTuple):
    """Embeddings of n entries by modality, ``(n, D)`` in the precision of the storage.

    present ``(n,)`` bool by modality. held ``(n,)`` bool: False where the entry was overwritten.
    """

    embeddings: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    held: torch.Tensor


class RingPart:
    """Part ``part`` of ``parts`` of the ring, in memory allocated once."""

    def __init__(
        self,
        spec: SupportSpec,
        part: int = 0,
        parts: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.spec, self.part, self.parts = spec, part, parts
        places = len(range(part, spec.capacity, parts))
        dtype = STORAGE[spec.storage]
        self._added = 0  # entries ever added to the whole ring, as far as this part knows
        self._held = 0
        self._number = torch.full((places,), NO_NEIGHBOUR, dtype=torch.int64, device=device)
        self._origin = Origin(
            *(torch.zeros(places, dtype=COLUMNS[name], device=device) for name in Origin._fields)
        )
        self._present = {
            name: torch.zeros(places, dtype=torch.bool, device=device) for name in spec.dims
        }
        self._keys = {n: Keys.empty(places, dim, dtype, device) for n, dim in spec.dims.items()}
        self._kind, _ = choose_index(spec.index, places, torch.device(device))
        self._index = {
            name: build_index(self._kind, keys, spec.backend, learning=spec.learning)
            for name, keys in self._keys.items()
            if spec.queried is None or name in spec.queried
        }

    @property
    def added(self) -> int:
        """Entries that were ever added to the whole ring, as far as this part knows."""
        return self._added

    @property
    def held(self) -> int:
        """Entries held now."""
        return self._held

    @property
    def is_building(self) -> bool:
        """Whether an index is being built in the background; see ``KeyIndex.is_building``."""
        return any(index.is_building for index in self._index.values())

    def enqueue(self, entries: SupportEntries, numbers: torch.Tensor, added: int) -> None:
        """Add those of ``entries`` that belong to this part.

        numbers ``(n,)`` int64: of the entries. added: entries ever added to the whole ring, these
        included. Embeddings are stored L2-normalised.
        """
        mine = self._is_own(numbers) & (numbers >= self._oldest(added))
        self._write(numbers[mine], entries.at(mine))
        self._added = max(self._added, added)

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str, added: int
    ) -> Candidates:
        """The ``k`` entries most similar to each query, without those that ``exclude`` covers.

        queries ``(B, D)`` of unit length. added: entries ever added to the whole ring, as far as
        the caller knows; entries that are dropped by then are not found. Where all other sessions
        are excluded the search is exact, otherwise as exact as the index.
        """
        if self._keys[modality].used == 0:
            return self._no_candidates(len(queries), k)
        oldest = self._oldest(max(added, self._added))
        search = self._search_sessions if exclude.session == "other" else self._search_index
        scores, places = search(queries, k, exclude, modality, oldest)
        valid = places != NO_PLACE
        places = places.clamp(min=0)
        return Candidates(
            score=scores,
            number=self._number[places].masked_fill(~valid, NO_NEIGHBOUR),
            place=places,
            **self._origin.at(places)._asdict(),
        )

    def _search_index(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str, oldest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and places ``(B, k)`` of the best entries that are allowed, by the index.

        oldest: see ``_exclusion_test``.
        """
        keys, index = self._keys[modality], self._index[modality]
        is_excluded, wanted = self._exclusion_test(exclude, oldest), k + SURPLUS
        first = index.search(queries, min(wanted, max(keys.used, k)))
        scores, places = _first_allowed(*first, k, is_excluded)
        # Usually few entries are excluded. Queries that have too few candidates left are searched
        # again with more candidates, and in the end (if the index is brute force: at once) among
        # all keys.
        most = min(MOST_CANDIDATES, keys.used // KEYS_PER_CANDIDATE)
        most = 0 if self._kind == "flat" else most
        while wanted < keys.used and len(rows := (places == NO_PLACE).any(1).nonzero()[:, 0]):
            wanted *= 4
            some, is_excluded = queries[rows], self._exclusion_test(exclude.at(rows), oldest)
            if wanted > most:
                all_places = torch.arange(keys.used, device=places.device)
                scores[rows], places[rows] = search_allowed(some, keys, all_places, k, is_excluded)
                break
            more = index.search(some, wanted)
            scores[rows], places[rows] = _first_allowed(*more, k, is_excluded)
        return scores, places

    def _search_sessions(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str, oldest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``_search_index``, by brute force among the entries of each query's own session.

        These are few, and few of them would be among the candidates of an index.
        """
        keys = self._keys[modality]
        scores = queries.new_full((len(queries), k), -torch.inf)
        places = torch.full_like(scores, NO_PLACE, dtype=torch.int64)
        held = self._origin.session[: keys.used]
        for rows, among in rows_by_session(exclude.origin.session, held):
            is_excluded = self._exclusion_test(exclude.at(rows), oldest)
            found = search_allowed(queries[rows], keys, among, k, is_excluded)
            scores[rows], places[rows] = found
        return scores, places

    def fetch(self, places: torch.Tensor, numbers: torch.Tensor) -> Fetched:
        """The entries ``numbers`` ``(n,)``, which were found at ``places`` ``(n,)``."""
        return Fetched(
            embeddings={n: keys.matrix[places, : keys.dim] for n, keys in self._keys.items()},
            present={name: present[places] for name, present in self._present.items()},
            held=self._number[places] == numbers,
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All entries, as named tensors that share the memory of this part."""
        used = min(len(self._number), max(keys.used for keys in self._keys.values()))
        state = {
            "added": torch.tensor(self._added),
            "number": self._number[:used],
            **self._origin.at(slice(used))._asdict(),
        }
        for name, keys in self._keys.items():
            state[f"keys.{name}"] = keys.matrix[:used, : keys.dim].contiguous()
            state[f"present.{name}"] = self._present[name][:used]
        return state

    def save(self, folder: Path, added: int) -> None:
        """Write all entries to a file in ``folder``. added: as in ``enqueue``."""
        self._added = max(self._added, added)
        state = self.state_dict() | index_state(self._index)
        path = file_of(folder, self.part, self.parts)
        save_file({name: tensor.cpu() for name, tensor in state.items()}, path)

    def load(self, folder: Path) -> None:
        """Load the entries of this part from the files in ``folder``, by any number of parts.

        Entries that are held already are kept if they are newer. ValueError where the files have
        other modalities or widths, or lack a column; then nothing is loaded.
        """
        files = snapshot_files(folder)
        for path in files:
            check_columns(path, self.spec.dims)
        whole = self._held == 0 and len(files) == self.parts == 1
        for path in files:
            with safe_open(path, framework="pt") as file:
                self._load_file(file)
                if whole:
                    names = [name for name in file.keys() if name.startswith(SAVED)]  # noqa: SIM118
                    restore_indexes(self._index, {n: file.get_tensor(n) for n in names})

    def _load_file(self, file: safe_open) -> None:
        """Load the entries of a snapshot's file that are of this part and newer than those held."""
        self._added = max(self._added, int(file.get_tensor("added")))
        all_numbers = file.get_tensor("number")
        names = [name for name in file.keys() if not name.startswith((SAVED, "added"))]  # noqa: SIM118
        columns = {name: file.get_slice(name) for name in names}
        for first in range(0, len(all_numbers), LOADED_AT_ONCE):
            some = {
                name: column[first : first + LOADED_AT_ONCE].to(self._number.device)
                for name, column in columns.items()
            }
            numbers = some["number"]
            mine = (numbers >= self._oldest(self._added)) & self._is_own(numbers)
            mine &= numbers > self._number[self._places(numbers).clamp(max=len(self._number) - 1)]
            entries = SupportEntries(
                **{name: some[name] for name in Origin._fields},
                embeddings={name: some[f"keys.{name}"] for name in self.spec.dims},
                present={name: some[f"present.{name}"] for name in self.spec.dims},
            )
            self._write(numbers[mine], entries.at(mine), normalise=False)

    def _write(
        self, numbers: torch.Tensor, entries: SupportEntries, normalise: bool = True
    ) -> None:
        """Write entries to their places. Those of a snapshot are of unit length already."""
        if not len(numbers):
            return
        places = self._places(numbers)
        end = int(places.max()) + 1
        self._held += int((self._number[places] < 0).sum())
        self._number[places] = numbers
        for column, values in zip(self._origin, entries.origin, strict=True):
            column[places] = values
        for name, present in self._present.items():
            present[places] = entries.present[name]
        for name, keys in self._keys.items():
            vectors = entries.embeddings[name].detach().float()
            if normalise:
                vectors = functional.normalize(vectors, dim=1)
            penalty = torch.where(self._answers(name, entries), 0.0, ABSENT)
            padded = torch.cat([vectors, penalty[:, None]], dim=1)
            keys.raise_used(end)
            keys.matrix[places] = padded.to(keys.matrix.dtype)
            if name in self._index:
                self._index[name].written(places)

    def _exclusion_test(self, exclude: Exclusion, oldest: int) -> ExclusionTest:
        """The test for places that a query must not find: excluded, or dropped from the ring.

        oldest: the lowest number that is still in the ring.
        """

        def is_excluded(places: torch.Tensor) -> torch.Tensor:
            return exclude.covers(self._origin.at(places)) | (self._number[places] < oldest)

        return is_excluded

    def _answers(self, modality: str, entries: SupportEntries) -> torch.Tensor:
        """Whether entries answer queries of ``modality``, ``(n,)`` bool."""
        answers = entries.present[modality]
        if modality == IMU and self.spec.imu_answers == "multimodal":
            teachers = [entries.present[name] for name in self.spec.dims if name != IMU]
            answers = answers & torch.stack(teachers).any(dim=0)
        return answers

    def _is_own(self, numbers: torch.Tensor) -> torch.Tensor:
        """Which of the entries ``numbers`` belong to this part."""
        return part_of(numbers, self.spec.capacity, self.parts) == self.part

    def _places(self, numbers: torch.Tensor) -> torch.Tensor:
        """Where this part stores its entries ``numbers``."""
        return numbers % self.spec.capacity // self.parts

    def _oldest(self, added: int) -> int:
        """The lowest number that is in the ring after ``added`` entries were added."""
        return max(0, added - self.spec.capacity)

    def _no_candidates(self, rows: int, k: int) -> Candidates:
        nothing = torch.full((rows, k), NO_NEIGHBOUR, device=self._number.device)
        place = torch.zeros_like(nothing)
        return Candidates(
            torch.full_like(nothing, -torch.inf, dtype=torch.float32),
            nothing,
            place,
            nothing,
            nothing,
            nothing,
            torch.full_like(nothing, -torch.inf, dtype=torch.float64),
        )


def _first_allowed(
    scores: torch.Tensor, places: torch.Tensor, k: int, is_excluded: ExclusionTest
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first ``k`` candidates of each query that are not excluded; candidates ``(B, n)``."""
    excluded = (places == NO_PLACE) | is_excluded(places)
    order = excluded.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
    excluded = excluded.gather(1, order)
    return (
        scores.gather(1, order).masked_fill(excluded, -torch.inf),
        places.gather(1, order).masked_fill(excluded, NO_PLACE),
    )


def part_of(numbers: torch.Tensor, capacity: int, parts: int) -> torch.Tensor:
    """Which of ``parts`` parts of a ring the entries ``numbers`` belong to."""
    return numbers % capacity % parts
