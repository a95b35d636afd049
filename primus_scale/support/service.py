"""A support set in Ray actors, each with a part of the ring, in device memory or on a CPU.

Rank 0 starts the actors, and they end with it. Entries are dealt to the parts in turn, every query
goes to all parts, and of their candidates the best are taken. A lookup that is asked ahead runs
while the step computes.

An actor that dies or is silent is left out: its entries are no candidates until Ray has started it
again, and it is filled from the newest checkpoint and from what is added since. So a neighbour is
at worst a more distant one, or none (``valid`` is False), never made up.
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
from primus_scale.support.actor import pack_entries, pack_exclusion, to_array, to_tensor
from primus_scale.support.base import Exclusion, Neighbours, SupportEntries, SupportSpec
from primus_scale.support.part import Candidates, part_of, save_empty
from primus_scale.support.service_actors import (
    ActorGroup,
    connect_to_ray,
    find_actors,
    start_actors,
)

AHEAD = 4  # batches on their way to an actor, until the sender waits for it

log = logging.getLogger(__name__)


class ServiceSupportSet:
    """Fulfils ``SupportSet``; every rank makes one, at the same time.

    device: of the answers. placement: a placement group with a bundle for each actor; None lets
    Ray spread them. ValueError where there is no Ray cluster, RuntimeError where it has no room.
    """

    def __init__(
        self,
        spec: SupportSpec,
        config: SupportConfig,
        device: torch.device | str = "cpu",
        placement: Any = None,
    ) -> None:
        self.spec, self._device = spec, device
        self._synchronous = config.synchronous
        connect_to_ray()
        self._own: list[Any] = []  # rank 0's, which keep the actors alive

        def start() -> str:
            prefix = f"primus-support-{uuid.uuid4().hex[:8]}"
            self._own = start_actors(spec, config, prefix, placement)
            return prefix

        prefix = on_first_rank(start)
        actors = find_actors(prefix, config.actors)
        self._crew = ActorGroup(actors, config.timeout_s, self._refill)
        self._added = 0
        self._snapshot: Path | None = None
        self._waited_s = 0.0
        self._sent: dict[int, deque[Any]] = {part: deque() for part in self._my_parts()}
        self._asker = ThreadPoolExecutor(1, "primus-lookup")

    def start_search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Begin a search now; in synchronous mode, when the answer is called for."""
        if self._synchronous:
            return lambda: self.search(queries, k, exclude, modality)
        return self._begin(queries, k, exclude, modality)

    def search(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Neighbours:
        """The ``k`` entries most alike each query; see ``SupportSet.search``."""
        return self._begin(queries, k, exclude, modality)()

    def enqueue(self, entries: SupportEntries) -> None:
        """Deal entries to the parts; each rank sends to some of them.

        Entries for an actor that is out are dropped. In synchronous mode it returns when all ranks'
        entries are held.
        """
        first, self._added = self._added, self._added + len(entries)
        numbers = torch.arange(first, self._added, device=entries.uid.device)
        for part in self._my_parts():
            mine = part_of(numbers, self.spec.capacity, len(self._crew)) == part
            message = pack_entries(entries.at(mine)), to_array(numbers[mine]), self._added
            sent = self._crew.call(part, "enqueue", *message)
            if sent is not None:
                self._sent[part].append(sent)
        if self._synchronous:
            self.flush()
        else:
            self._settle(AHEAD)

    def flush(self) -> None:
        """Return when all that was enqueued is held, or lost with an actor."""
        self._settle(0)
        barrier()

    def save(self, folder: Path) -> None:
        """Have every actor write its part to ``folder``.

        An actor that is out, and does not come back in time, leaves its part empty. OSError where
        one cannot write.
        """
        self._crew.await_all()
        self._crew.ask_all("status")  # one that has begun anew is filled before it writes
        done = self._crew.ask_all("save", str(folder.absolute()), self._added, long_work=True)
        for part in self._crew.parts:
            if part not in done:
                log.warning("support actor %d is out: the checkpoint holds nothing of it", part)
                save_empty(self.spec, part, len(self._crew), folder, self._added)

    def saved(self, folder: Path) -> None:
        """Fill actors that start again from ``folder``."""
        self._snapshot = folder.absolute()

    def load(self, folder: Path) -> None:
        """Have every actor take in its part; see ``SupportSet.load``."""

        def load() -> int:
            done = self._crew.ask_all("load", str(folder.absolute()), long_work=True)
            if not done:
                raise ConnectionError(
                    f"no support actor is there to take in {folder}; start again to go on"
                )
            return max(status.added for status in done.values())

        self._added = on_first_rank(load)
        self.saved(folder)

    def figures(self) -> dict[str, float]:
        """``fill``; how many actors are ``learning`` and out; ``waited_s``, since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return {**self._crew.figures(), "waited_s": waited_s}

    def close(self) -> None:
        """End the lookups, and on rank 0 the actors."""
        self._asker.shutdown(cancel_futures=True)
        for actor in self._own:
            ray.kill(actor)

    def _my_parts(self) -> range:
        """The parts to which this rank sends: one sender a part keeps entries in their order."""
        return range(rank(), len(self._crew), world_size())

    def _settle(self, ahead: int) -> None:
        """Wait until at most ``ahead`` batches are on their way to each actor."""
        while any(len(sent) > ahead for sent in self._sent.values()):
            oldest = {p: sent.popleft() for p, sent in self._sent.items() if len(sent) > ahead}
            for part in oldest.keys() - self._crew.results(oldest).keys():
                self._sent[part].clear()  # lost with the actor

    def _refill(self, part: int) -> None:
        """An actor has started again, and holds nothing: every rank that sees it fills it."""
        if self._snapshot is not None:
            self._crew.call_and_forget(part, "load", str(self._snapshot))

    def _begin(
        self, queries: torch.Tensor, k: int, exclude: Exclusion, modality: str
    ) -> Callable[[], Neighbours]:
        """Hand a question to the asking thread; what waits for the answer."""
        unit = self.spec.prepare(queries, k, self._added)
        if unit is None:
            return lambda: Neighbours.none(len(queries), k, self.spec.dims, self._device)
        question = to_array(unit), k, pack_exclusion(exclude), modality, self._added
        answer = self._asker.submit(self._lookup, *question)
        return lambda: self._wait(answer)

    def _wait(self, answer: Future[Neighbours]) -> Neighbours:
        start = time.perf_counter()
        found = answer.result().to(self._device)
        self._waited_s += time.perf_counter() - start
        return found

    def _lookup(self, queries: Any, k: int, exclude: Any, modality: str, added: int) -> Neighbours:
        """Ask all parts, take the best of their candidates, and fetch those."""
        answers = self._crew.ask_all("search", ray.put(queries), k, exclude, modality, added)
        found = {part: answer[0] for part, answer in answers.items()}
        neighbours = Neighbours.none(len(queries), k, self.spec.dims, "cpu")
        if not found:
            return neighbours
        best, owner = best_of(found, k, self.spec.capacity)
        self._fetch(best, owner, neighbours)
        added = max(added, int(best.number.max()) + 1)  # entries may have come meanwhile
        for name, value in (
            ("uid", best.uid),
            ("recording", best.recording),
            ("start_s", best.start_s),
            ("age", added - 1 - best.number),
            ("score", best.score),
        ):
            getattr(neighbours, name).copy_(value)
        return neighbours

    def _fetch(self, best: Candidates, owner: torch.Tensor, into: Neighbours) -> None:
        """Put the embeddings of the chosen candidates, from their owners, into their places."""
        chosen = {part: (best.number >= 0) & (owner == part) for part in owner.unique().tolist()}
        calls = {
            part: self._crew.call(
                part, "fetch", to_array(best.place[at]), to_array(best.number[at])
            )
            for part, at in chosen.items()
        }
        for part, fetched in self._crew.results(calls).items():
            at = chosen[part]
            into.valid[at] = to_tensor(fetched.held)  # others were overwritten meanwhile
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
