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
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError

from primus_scale.storage.foreign import reason

ANSWER_S = 10.0  # for a connection to the cluster
STARTS = 5  # of processes that fail in a row, until the cluster is taken for broken
PATIENCE_S = 30.0  # after which it is told that there is no room for a worker
DEATHS = 2  # of the worker on one item: once may be chance (memory, a lost node), twice is the item


@dataclass(frozen=True)
class Failed:
    """What came of an item on which nothing was made. why: a sentence for the user."""

    why: str


@contextmanager
def ray_cluster(cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own.

    cpus: of the local cluster (None: the machine's cores); it listens on loopback and ends with
    the block. ConnectionError where nothing answers at ``RAY_ADDRESS``.
    """
    if on_cluster():
        _join_cluster(os.environ["RAY_ADDRESS"])
    else:
        # A token in the home folder would bind all later clusters of this user to it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        with _loopback(), _own_logging():
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


def on_cluster() -> bool:
    """Whether ``RAY_ADDRESS`` names a cluster; a variable that is empty does not."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _join_cluster(address: str) -> None:
    """Ray itself would try for minutes, and then end the process."""
    advice = "start it (ray start), correct RAY_ADDRESS, or unset it to work on this machine alone"
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        ray.init(logging_level=logging.WARNING)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason(error)}); {advice}"
        ) from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Have Ray take 127.0.0.1 for an answer.

    It puts the machine's own address instead, unless it believes that the machine cannot be part
    of a cluster. Whether it does is read from the environment: here when Ray was imported, and by
    the processes that it starts, when they start.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


@contextmanager
def _own_logging() -> Iterator[None]:
    """Keep this process's logging as it is: what Ray is told is meant for its workers alone."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def stays_here(workers: int) -> bool:
    """Whether ``run_tasks`` with so many workers runs in this process."""
    return workers == 1 and not on_cluster()


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
    one, or several); those that the cluster has no room for now join when it has. report: is told
    where there is room for none. Functions, items and results travel between processes, so they
    are pickled.

    An exception of the function is raised here, and ends the others. Where a worker's process dies
    twice on an item, its result is ``Failed``. ValueError where no machine can hold a worker.
    """
    if not items:
        return
    if stays_here(workers):
        worker = make_worker()
        yield from ((place, worker(item)) for place, item in enumerate(items))
        return
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
        """Answers as soon as the process runs."""

    def run(self, item: Any) -> Any:
        """The result of one item; the worker is built at the first, whose error it raises."""
        if self._worker is None:
            self._worker = self._make_worker()
        return self._worker(item)


def _check_room(threads: int, gpus: float) -> None:
    """ValueError where no machine of the cluster has what a worker needs: it would wait forever."""
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
        self._stillborn = 0  # processes in a row that did not start
        for _ in range(workers):
            self._hire()

    def run(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Place and result of every item, as they come."""
        waiting = deque(range(len(items)))
        deaths: Counter[int] = Counter()
        while waiting or self._running:
            while waiting and self._idle:
                place, actor = waiting.popleft(), self._idle.pop()
                self._running[actor.run.remote(items[place])] = place, actor
            done = self._wait()
            if done in self._starting:
                self._welcome(done)
            elif done is not None:
                place, actor = self._running.pop(done)
                try:
                    yield place, self._result(done, actor)
                except _DiedError as error:
                    self._hire()
                    deaths[place] += 1
                    if deaths[place] < DEATHS:
                        waiting.appendleft(place)
                    else:
                        yield place, Failed(f"its process died {DEATHS} times ({error})")

    def _hire(self) -> None:
        actor = self._start()
        self._starting[actor.start.remote()] = actor

    def _wait(self) -> Any:
        """Something that has ended; None where nothing did for long, which is told."""
        refs = [*self._running, *self._starting]
        ended, _ = ray.wait(refs, num_returns=1, timeout=None if self._running else PATIENCE_S)
        if ended:
            return ended[0]
        self._report("no worker runs: the cluster has no room for one now; waiting")
        return None

    def _welcome(self, ref: Any) -> None:
        """Let an actor whose process runs take items; a process that does not start is replaced."""
        actor = self._starting.pop(ref)
        try:
            ray.get(ref)
        except RayError:
            self._stillborn += 1
            if self._stillborn == STARTS:
                raise
            self._hire()
        else:
            self._stillborn = 0
            self._idle.append(actor)

    def _result(self, ref: Any, actor: Any) -> Any:
        """What the actor made of an item; _DiedError where its process, node or memory ended."""
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            # The other lines are of Ray's log files.
            raise _DiedError(str(error).partition("\n")[0].strip()) from error
        self._idle.append(actor)
        return result


class _DiedError(Exception):
    """A worker's process is gone, with the item that it worked on."""
