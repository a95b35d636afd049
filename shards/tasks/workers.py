"""Work on many items at once: Ray workers, on an existing cluster or on this machine.

    for place, result in run_tasks(make_worker, items, workers=8):
        ...

``make_worker()`` is called once in each worker and returns the function that is applied to items,
so that a reader or a teacher is built once, not for each item. One worker without a cluster is this
process itself: nothing is started, and a debugger works.
"""

from __future__ import annotations

import itertools
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

CONNECT_TIMEOUT_S = 10.0  # for a connection to the cluster
MOST_FAILED_STARTS = 5  # in a row; then the cluster is taken to be broken
PATIENCE_S = 30.0  # between reports that there is no room for a worker
MOST_STARTS = 3  # of a local cluster
LATE = "timed out during startup"  # in Ray's words
MOST_CRASHES = 2  # of workers on one item: one may be chance (memory, a lost node)


@dataclass(frozen=True)
class Failed:
    """The result of an item that failed. why: a sentence for the user."""

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
        # Otherwise Ray writes a token to the home folder, which later clusters would need.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        with _loopback(), _logging_kept():
            _start_local(cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(cpus: int | None) -> None:
    """Start a local cluster, again where it is not up in Ray's 30 s: on a busy machine it is late.

    Ray has no setting for that time (``Node.__init__``), and raises a plain Exception.
    """
    for start in itertools.count(1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.WARNING,
                logging_config=ray.LoggingConfig(log_level="ERROR"),
                _node_ip_address="127.0.0.1",
            )
            return
        except Exception as error:
            if LATE not in str(error) or start == MOST_STARTS:
                raise
            ray.shutdown()
            print("the local Ray cluster is late on this busy machine; starting it again")


def on_cluster() -> bool:
    """Whether ``RAY_ADDRESS`` names a cluster; a variable that is empty does not."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _join_cluster(address: str) -> None:
    """Connect, or raise ConnectionError: Ray would try for minutes, and then end the process."""
    advice = "start it (ray start), correct RAY_ADDRESS, or unset it to work on this machine alone"
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        ray.init(logging_level=logging.WARNING)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason(error)}); {advice}"
        ) from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray listen on 127.0.0.1.

    It uses the machine's own address instead, unless clusters are disabled. It reads this from the
    environment: in this process at import, in processes that it starts at their start.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Keep this process's logging as it is: Ray's settings are meant for its workers alone."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def runs_in_process(workers: int) -> bool:
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
    one, or several); those without room in the cluster start later. report: called where
    there is room for none. Functions, items and results travel between processes, so they
    are pickled.

    An exception of the function is raised here, and ends the others. Where a worker's process dies
    twice on an item, its result is ``Failed``. ValueError where no machine can hold a worker.
    """
    if not items:
        return
    if runs_in_process(workers):
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
                        yield place, Failed(f"its process died {MOST_CRASHES} times ({error})")

    def _add_worker(self) -> None:
        actor = self._start()
        self._starting[actor.start.remote()] = actor

    def _wait(self) -> Any:
        """A reference that has ended; None, with a report, where none did for long."""
        refs = [*self._running, *self._starting]
        ended, _ = ray.wait(refs, num_returns=1, timeout=None if self._running else PATIENCE_S)
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
