"""A support set in Ray actors, each with a part of the ring, in device memory or on a CPU.

Rank 0 starts the actors, and they end with it. Actor ``i`` holds part ``i``. Entries are divided
over the parts in turn. A query goes to all parts, and the best of their candidates are its
neighbours. A search that is started ahead runs while the step computes.

An actor that dies or does not answer is *out*: its entries are not found until Ray has started it
again and it is filled from the newest checkpoint and from new entries. Until then a query finds a
more distant neighbour, or none (``valid`` is False), never a wrong one.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import torch

from primus_scale.config import SupportConfig
from primus_scale.distributed.collectives import barrier, on_first_rank, rank, world_size
from primus_scale.sample import Origin
from primus_scale.support.actor import pack_entries, pack_exclusion, to_array, to_tensor
from primus_scale.support.base import Exclusion, Neighbours, SupportEntries, SupportSpec
from primus_scale.support.part import Candidates, part_of
from primus_scale.support.service_actors import (
    ActorGroup,
    connect_to_ray,
    find_actors,
    start_actors,
)
from primus_scale.support.snapshot import save_empty

MOST_IN_FLIGHT = 4  # batches sent to an actor and not yet added; then the sender waits

log = logging.getLogger(__name__)


class ServiceSupportSet:
    """Implements ``SupportSet``; every rank makes one, at the same time.

    device: of the neighbours. placement_group: of Ray, with a bundle for each actor; None
    lets Ray spread them. ValueError where there is no Ray cluster, RuntimeError where it has no
    resources for the actors.
    """

    def __init__(
        self,
        spec: SupportSpec,
        config: SupportConfig,
        device: torch.device | str = "cpu",
        placement_group: Any = None,
    ) -> None:
        self.spec, self._device = spec, device
        self._synchronous = config.synchronous
        connect_to_ray()
        self._started: list[Any] = []  # handles of rank 0: the actors live as long as these

        def start() -> str:
            prefix = f"primus-support-{uuid.uuid4().hex[:8]}"
            self._started = start_actors(spec, config, prefix, placement_group)
            return prefix

        prefix = on_first_rank(start)
        actors = find_actors(prefix, config.actors)
        self._actors = ActorGroup(actors, config.timeout_s, self._fill_restarted)
        self._added = 0
        self._snapshot: Path | None = None
        self._waited_s = 0.0
        self._sent: dict[int, deque[Any]] = {part: deque() for part in self._own_parts()}
        self._lookups = ThreadPoolExecutor(1, "primus-lookup")

    def start_search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Start a search now; in synchronous mode, when the result is called."""
        if self._synchronous:
            return lambda: self.search(queries, k, exclude, modality)
        return self._start_lookup(queries, k, exclude, modality)

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Neighbours:
        """The ``k`` entries most similar to each query; see ``SupportSet.search``."""
        return self._start_lookup(queries, k, exclude, modality)()

    def enqueue(self, entries: SupportEntries) -> None:
        """Divide entries over the parts; each rank sends to some of the parts.

        Entries for an actor that is out are dropped. In synchronous mode the call returns when all
        entries are added.
        """
        first, self._added = self._added, self._added + len(entries)
        numbers = torch.arange(first, self._added, device=entries.uid.device)
        for part in self._own_parts():
            mine = part_of(numbers, self.spec.capacity, len(self._actors)) == part
            message = pack_entries(entries.at(mine)), to_array(numbers[mine]), self._added
            sent = self._actors.call(part, "enqueue", *message)
            if sent is not None:
                self._sent[part].append(sent)
        if self._synchronous:
            self.flush()
        else:
            self._wait_for_sent(MOST_IN_FLIGHT)

    def flush(self) -> None:
        """Wait until all entries that were enqueued are added, or lost with an actor."""
        self._wait_for_sent(0)
        barrier()

    def save(self, folder: Path) -> None:
        """Have every actor write its part to ``folder``.

        The part of an actor that is out, and does not come back in time, is written empty. OSError
        where an actor cannot write.
        """
        self._actors.await_all()
        self._actors.ask_all("status")  # restarted actors are found, and filled before they write
        done = self._actors.ask_all("save", str(folder.absolute()), self._added, long_work=True)
        for part in self._actors.parts:
            if part not in done:
                log.warning("support actor %d is out: the checkpoint holds nothing of it", part)
                save_empty(self.spec, part, len(self._actors), folder, self._added)

    def saved(self, folder: Path) -> None:
        """From now on, fill restarted actors from ``folder``."""
        self._snapshot = folder.absolute()

    def load(self, folder: Path) -> None:
        """Have every actor load its part; see ``SupportSet.load``."""

        def load() -> int:
            done = self._actors.ask_all("load", str(folder.absolute()), long_work=True)
            if not done:
                raise ConnectionError(
                    f"no support actor answers, to load {folder}; start again to go on"
                )
            return max(status.added for status in done.values())

        self._added = on_first_rank(load)
        self.saved(folder)

    def figures(self) -> dict[str, float]:
        """``fill``; how many actors are ``learning`` and out; ``waited_s``, since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return {**self._actors.figures(), "waited_s": waited_s}

    def close(self) -> None:
        """End the lookup thread, and on rank 0 the actors."""
        self._lookups.shutdown(cancel_futures=True)
        for actor in self._started:
            ray.kill(actor)

    def _own_parts(self) -> range:
        """The parts to which this rank sends. One sender for each part keeps entries in order."""
        return range(rank(), len(self._actors), world_size())

    def _wait_for_sent(self, most: int) -> None:
        """Wait until, for each actor, at most ``most`` of the batches sent to it are not added."""
        while any(len(sent) > most for sent in self._sent.values()):
            oldest = {p: sent.popleft() for p, sent in self._sent.items() if len(sent) > most}
            for part in oldest.keys() - self._actors.results(oldest).keys():
                self._sent[part].clear()  # lost with the actor

    def _fill_restarted(self, part: int) -> None:
        """Fill an actor that was restarted and is empty; every rank that notices it does so."""
        if self._snapshot is not None:
            self._actors.call_without_waiting(part, "load", str(self._snapshot))

    def _start_lookup(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Start a search in the lookup thread; calling the result waits for the neighbours."""
        unit = self.spec.prepare(queries, k, self._added)
        if unit is None:
            return lambda: Neighbours.none(len(queries), k, self.spec.dims, self._device)
        arguments = to_array(unit), k, pack_exclusion(exclude), modality, self._added
        lookup = self._lookups.submit(self._lookup, *arguments)
        return lambda: self._wait(lookup)

    def _wait(self, lookup: Future[Neighbours]) -> Neighbours:
        start = time.perf_counter()
        found = lookup.result().to(self._device)
        self._waited_s += time.perf_counter() - start
        return found

    def _lookup(self, queries: Any, k: int, exclude: Any, modality: str, added: int) -> Neighbours:
        """Search all parts, choose the best of their candidates, and fetch their embeddings."""
        answers = self._actors.ask_all("search", ray.put(queries), k, exclude, modality, added)
        found = {part: answer[0] for part, answer in answers.items()}
        neighbours = Neighbours.none(len(queries), k, self.spec.dims, "cpu")
        if not found:
            return neighbours
        best, owner = best_of(found, k, self.spec.capacity)
        self._fetch(best, owner, neighbours)
        added = max(added, int(best.number.max()) + 1)  # entries may have been added meanwhile
        columns = {**best._asdict(), "age": added - 1 - best.number}
        for name in (*Origin._fields, "age", "score"):
            getattr(neighbours, name).copy_(columns[name])
        return neighbours

    def _fetch(self, best: Candidates, owner: torch.Tensor, into: Neighbours) -> None:
        """Fetch the embeddings of the best candidates from their parts, and write them to ``into``.

        owner: the part of each candidate.
        """
        chosen = {part: (best.number >= 0) & (owner == part) for part in owner.unique().tolist()}
        calls = {
            part: self._actors.call(
                part, "fetch", to_array(best.place[at]), to_array(best.number[at])
            )
            for part, at in chosen.items()
        }
        for part, fetched in self._actors.results(calls).items():
            at = chosen[part]
            into.valid[at] = to_tensor(fetched.held)  # False where overwritten meanwhile
            for name in self.spec.dims:
                into.embeddings[name][at] = to_tensor(fetched.embeddings[name]).float()
                into.present[name][at] = to_tensor(fetched.present[name] & fetched.held)


def best_of(
    found: Mapping[int, Candidates], k: int, capacity: int
) -> tuple[Candidates, torch.Tensor]:
    """The best ``k`` of the parts' candidates (arrays) for each query, and the part of each.

    Of equal scores the lower slot of the ring comes first, as it does within a part.
    """
    columns = [
        torch.cat([to_tensor(candidates[field]) for candidates in found.values()], dim=1)
        for field in range(len(Candidates._fields))
    ]
    merged = Candidates(*columns)
    parts = torch.cat(
        [torch.full(candidates.number.shape, part) for part, candidates in found.items()], dim=1
    )
    by_slot = (merged.number % capacity).argsort(dim=1)
    by_score = merged.score.gather(1, by_slot).argsort(dim=1, descending=True, stable=True)
    order = by_slot.gather(1, by_score)[:, :k]
    return Candidates(*(column.gather(1, order) for column in merged)), parts.gather(1, order)
