"""Work on many items by Ray workers: actors that take items from one queue."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from shards.tasks.local import MOST_CRASHES, crashed
from shards.tasks.ray_cluster import ray_cluster

MOST_FAILED_STARTS = 5  # in a row; then the cluster is taken to be broken
WAITING_NOTICE_S = 30.0  # between reports that there is no room for a worker


def run_on_ray(
    make_worker: Callable[[], Callable[[Any], Any]],
    items: Sequence[Any],
    *,
    workers: int,
    threads: int,
    gpus: float,
    report: Callable[[str], None],
) -> Iterator[tuple[int, Any]]:
    """``shards.tasks.workers.run_tasks`` by Ray workers."""
    workers = min(workers, len(items))
    with ray_cluster(workers * threads):
        _check_room(threads, gpus)
        actor = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        yield from _WorkerPool(lambda: actor.remote(make_worker), workers, report).run(items)


class _Worker:
    """The process of a worker."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[Any], Any] | None = None

    def start(self) -> None:
        """Returns as soon as the process runs."""

    def run(self, item: Any) -> Any:
        """The result of one item; the worker is built at the first, whose error it raises."""
        if self._worker is None:
            self._worker = self._make_worker()
        return self._worker(item)


def _check_room(threads: int, gpus: float) -> None:
    """ValueError where no machine of the cluster is large enough: Ray would wait forever."""
    wanted = {"CPU": float(threads), **({"GPU": gpus} if gpus else {})}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(has.get(kind, 0.0) >= each for kind, each in wanted.items()) for has in nodes):
        return
    needs = " and ".join(f"{each:g} {kind}" for kind, each in wanted.items())
    most = ", ".join(
        f"{max(has.get(kind, 0.0) for has in nodes):g} {kind}" for kind in wanted if nodes
    )
    raise ValueError(f"a worker needs {needs}, machines of the cluster have up to {most}; lower it")


class _WorkerPool:
    """Actors that take items from one queue, each as soon as its process runs."""

    def __init__(
        self, start: Callable[[], Any], workers: int, report: Callable[[str], None]
    ) -> None:
        self._start = start
        self._report = report
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[int, Any]] = {}
        self._failed_starts = 0  # processes in a row that did not start
        for _ in range(workers):
            self._add_worker()

    def run(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Place and result of every item, as they come."""
        waiting = deque(range(len(items)))
        crashes: Counter[int] = Counter()
        while waiting or self._running:
            while waiting and self._idle:
                place, actor = waiting.popleft(), self._idle.pop()
                self._running[actor.run.remote(items[place])] = place, actor
            done = self._wait()
            if done in self._starting:
                self._take_started(done)
            elif done is not None:
                place, actor = self._running.pop(done)
                try:
                    yield place, self._result(done, actor)
                except _WorkerCrashedError as error:
                    self._add_worker()
                    crashes[place] += 1
                    if crashes[place] < MOST_CRASHES:
                        waiting.appendleft(place)
                    else:
                        yield place, crashed(str(error))

    def _add_worker(self) -> None:
        actor = self._start()
        self._starting[actor.start.remote()] = actor

    def _wait(self) -> Any:
        """A reference that has ended; None, with a report, where none did for long."""
        refs = [*self._running, *self._starting]
        timeout_s = None if self._running else WAITING_NOTICE_S
        ended, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ended:
            return ended[0]
        self._report("no worker runs: the cluster has no room for one now; waiting")
        return None

    def _take_started(self, ref: Any) -> None:
        """Add an actor whose process runs to the idle ones; replace one that did not start."""
        actor = self._starting.pop(ref)
        try:
            ray.get(ref)
        except RayError:
            self._failed_starts += 1
            if self._failed_starts == MOST_FAILED_STARTS:
                raise
            self._add_worker()
        else:
            self._failed_starts = 0
            self._idle.append(actor)

    def _result(self, ref: Any, actor: Any) -> Any:
        """The actor's result of an item; _WorkerCrashedError where its process or node ended."""
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            # The other lines name Ray's log files.
            raise _WorkerCrashedError(str(error).partition("\n")[0].strip()) from error
        self._idle.append(actor)
        return result


class _WorkerCrashedError(Exception):
    """A worker's process ended while it worked on an item."""
