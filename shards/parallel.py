"""Work on many items at once: Ray workers, on an existing cluster or on this machine.

    for place, result in run_tasks(make_worker, items, workers=8):
        ...

``make_worker()`` is called once in each worker and returns the function that is applied to items,
so that a reader or a teacher is built once, not for each item. One worker without a cluster is this
process itself: nothing is started, and a debugger works.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

DEATHS = 2  # of the worker on one item: once may be chance (memory, a lost node), twice is the item


@dataclass(frozen=True)
class Failed:
    """What came of an item on which nothing was made. why: a sentence for the user."""

    why: str


@contextmanager
def ray_cluster(cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own.

    cpus: of the local cluster (None: the machine's cores); it listens on loopback and ends with
    the block.
    """
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING)
    else:
        # A token in the home folder would bind all later clusters of this user to it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            logging_level=logging.WARNING,
            logging_config=ray.LoggingConfig(log_level="ERROR"),
            _node_ip_address="127.0.0.1",
        )
    try:
        yield
    finally:
        ray.shutdown()


def stays_here(workers: int) -> bool:
    """Whether ``run_tasks`` with so many workers runs in this process."""
    return workers == 1 and "RAY_ADDRESS" not in os.environ


def run_tasks(
    make_worker: Callable[[], Callable[[Any], Any]],
    items: Sequence[Any],
    *,
    workers: int,
    threads: int = 1,
    gpus: float = 0.0,
    report: Callable[[str], None] = print,
) -> Iterator[tuple[int, Any]]:
    """Apply a worker's function to every item; yields place and result as they come.

    workers: at most so many at once, each with ``threads`` cores and ``gpus`` devices (a share of
    one, or several). Functions, items and results travel between processes, so they are pickled.

    An exception of the function is raised here, and ends the others. Where a worker's process dies
    twice on an item, its result is ``Failed``. ValueError where not one worker fits on the cluster.
    """
    if not items:
        return
    workers = min(workers, len(items))
    if stays_here(workers):
        worker = make_worker()
        yield from ((place, worker(item)) for place, item in enumerate(items))
        return
    with ray_cluster(workers * threads):
        workers = _fitting(workers, threads, gpus, report)
        actor = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        yield from _run(lambda: actor.remote(make_worker), items, workers)


class _Worker:
    """The process of a worker."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[Any], Any] | None = None

    def run(self, item: Any) -> Any:
        """The result of one item; the worker is built at the first, whose error it raises."""
        if self._worker is None:
            self._worker = self._make_worker()
        return self._worker(item)


def _fitting(workers: int, threads: int, gpus: float, report: Callable[[str], None]) -> int:
    """How many of the workers the cluster can hold: those beyond would wait without a word."""
    there = ray.cluster_resources()
    wanted = {"CPU": float(threads), **({"GPU": gpus} if gpus else {})}
    fitting = min(int(there.get(kind, 0.0) / each) for kind, each in wanted.items())
    if fitting < 1:
        needs = " and ".join(f"{each:g} {kind}" for kind, each in wanted.items())
        has = ", ".join(f"{there.get(kind, 0.0):g} {kind}" for kind in wanted)
        raise ValueError(f"a worker needs {needs}, the cluster has {has}; lower one of them")
    if fitting < workers:
        report(f"the cluster has room for {fitting} of {workers} workers")
    return min(workers, fitting)


def _run(start: Callable[[], Any], items: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
    waiting = deque(range(len(items)))
    idle = [start() for _ in range(workers)]
    running: dict[Any, tuple[int, Any]] = {}
    deaths: Counter[int] = Counter()
    while waiting or running:
        while waiting and idle:
            place, actor = waiting.popleft(), idle.pop()
            running[actor.run.remote(items[place])] = place, actor
        (done,), _ = ray.wait(list(running), num_returns=1)
        place, actor = running.pop(done)
        try:
            result = ray.get(done)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            idle.append(start())
            deaths[place] += 1
            if deaths[place] < DEATHS:
                waiting.appendleft(place)
                continue
            result = Failed(f"the process that worked on it died {DEATHS} times ({_first(error)})")
        else:
            idle.append(actor)
        yield place, result


def _first(error: Exception) -> str:
    """The first line of Ray's message; the others tell of its log files."""
    return str(error).partition("\n")[0].strip()
