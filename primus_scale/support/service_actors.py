"""The support service's actors as clients use them: start, call, notice failures and restarts."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from primus_scale.config import SupportConfig
from primus_scale.support.actor import Status, SupportActor
from primus_scale.support.base import SupportSpec

NAMESPACE = "primus-scale"
REPORT_S = 10.0  # between lines that report actors which have not started
START_S = 600.0  # for all actors to start; then it is an error
LONG_WORK_S = 3600.0  # for an actor to write or read the files of its part
PING_S = 0.5  # between pings of an actor that is out

log = logging.getLogger(__name__)


def connect_to_ray() -> None:
    """Connect this process to the Ray cluster; ValueError where no cluster is configured."""
    if ray.is_initialized():
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            "support.home=service needs a Ray cluster: start with python -m launch.ray_train, or "
            "set RAY_ADDRESS, or use support.home=in_process"
        )
    ray.init(logging_level=logging.WARNING)


def start_actors(
    spec: SupportSpec, config: SupportConfig, prefix: str, placement_group: Any
) -> list[Any]:
    """Start ``config.actors`` actors, named ``prefix-0`` and so on; they end with this process.

    RuntimeError where they do not start.
    """
    actors = [
        ray.remote(SupportActor)
        .options(
            name=f"{prefix}-{part}",
            namespace=NAMESPACE,
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
            max_restarts=-1,
            scheduling_strategy=_strategy(placement_group, part),
        )
        .remote(
            spec, part, config.actors, config.threads, "cuda" if config.gpus_per_actor else "cpu"
        )
        for part in range(config.actors)
    ]
    _wait_for(actors)
    return actors


def find_actors(prefix: str, count: int) -> list[Any]:
    """The actors that another rank has started."""
    return [ray.get_actor(f"{prefix}-{part}", NAMESPACE) for part in range(count)]


def _strategy(placement_group: Any, part: int) -> Any:
    if placement_group is None:
        return "SPREAD"
    return PlacementGroupSchedulingStrategy(placement_group, placement_group_bundle_index=part)


def _wait_for(actors: Sequence[Any]) -> None:
    """Wait until all actors have started."""
    start = time.monotonic()
    waiting = [actor.status.remote() for actor in actors]
    while True:
        ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=REPORT_S)
        ray.get(ready)
        if not waiting:
            return
        problem = f"{len(waiting)} of {len(actors)} support actors have not started"
        if time.monotonic() - start > START_S:
            raise RuntimeError(
                f"{problem} in {START_S:.0f} s; lower support.actors, support.cpus_per_actor or "
                "support.gpus_per_actor, or add machines to the cluster"
            )
        print(f"{problem}; waiting for resources of the cluster", file=sys.stderr, flush=True)


class ActorGroup:
    """Calls to the actors, which continue without those that are out.

    An actor is named by the number of its part. It is out after a call to it failed or took longer
    than ``timeout_s``, until it answers a ping. on_restart: called with the number of an actor that
    was restarted and so has lost its entries. Several threads may use a group.
    """

    def __init__(
        self, actors: Sequence[Any], timeout_s: float, on_restart: Callable[[int], None]
    ) -> None:
        self._actors = list(actors)
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._pings: dict[int, tuple[Any, float]] = {}  # of actors that are out, and since when
        self._unwaited: list[tuple[int, Any]] = []  # calls whose result nobody waits for
        self._status: dict[int, Status] = {}
        self._lock = threading.RLock()
        for part, actor in enumerate(self._actors):
            self._keep_status(part, ray.get(actor.status.remote(), timeout=START_S))

    def __len__(self) -> int:
        return len(self._actors)

    @property
    def parts(self) -> range:
        """Numbers of the actors."""
        return range(len(self._actors))

    def call(self, part: int, method: str, *arguments: Any) -> Any:
        """Start a call, for ``results``; None where the actor is out."""
        if not self._is_reachable(part):
            return None
        return getattr(self._actors[part], method).remote(*arguments)

    def call_without_waiting(self, part: int, method: str, *arguments: Any) -> None:
        """Start a call whose result is not needed; a failure is logged later."""
        with self._lock:
            self._unwaited.append((part, self.call(part, method, *arguments)))

    def results(self, calls: Mapping[int, Any], long_work: bool = False) -> dict[int, Any]:
        """The results of calls, by actor, without actors that died, did not answer, or were out.

        All calls together may take ``timeout_s``. With ``long_work`` they may take
        ``LONG_WORK_S``, and an actor that does not answer then raises TimeoutError, since it may
        still be writing. An exception of the actor's code is raised.
        """
        end = time.monotonic() + (LONG_WORK_S if long_work else self._timeout_s)
        answers = {}
        for part, ref in calls.items():
            if ref is None:
                continue
            try:
                answer = ray.get(ref, timeout=max(end - time.monotonic(), 0.0))
            except RayTaskError as error:
                raise error.cause from error
            except GetTimeoutError as error:
                if long_work:
                    where = self._status[part].where
                    raise TimeoutError(
                        f"support actor {part} ({where}) is not done in {LONG_WORK_S:g} s"
                    ) from error
                self._mark_out(part, f"silent for {self._timeout_s:g} s")
            except RayError:  # the actor, its machine, or its result is lost
                self._mark_out(part, "dead")
            else:
                answers[part] = answer
                # Most calls return a Status, by itself or in a pair with their result.
                for item in answer if type(answer) is tuple else (answer,):
                    if isinstance(item, Status):
                        self._keep_status(part, item)
        self._report_unwaited()
        return answers

    def ask_all(self, method: str, *arguments: Any, long_work: bool = False) -> dict[int, Any]:
        """Call all actors at once; see ``results``."""
        calls = {part: self.call(part, method, *arguments) for part in self.parts}
        return self.results(calls, long_work)

    def await_all(self) -> None:
        """Wait for actors that are out to come back, at most ``timeout_s``."""
        end = time.monotonic() + self._timeout_s
        while not all(map(self._is_reachable, self.parts)) and time.monotonic() < end:
            time.sleep(PING_S)

    def figures(self) -> dict[str, float]:
        """``fill``: entries of the actors that are not out; ``learning``; ``actors_out``."""
        with self._lock:
            reachable = [s for part, s in self._status.items() if part not in self._pings]
            return {
                "fill": sum(status.held for status in reachable),
                "learning": sum(status.building for status in reachable),
                "actors_out": len(self._pings),
            }

    def _is_reachable(self, part: int) -> bool:
        """Whether an actor is not out; checks the ping of one that was."""
        with self._lock:
            if part not in self._pings:
                return True
            ping, sent = self._pings[part]
            if not ray.wait([ping], timeout=0)[0]:
                return False
            try:
                status = ray.get(ping)
            except RayError:  # not yet
                if time.monotonic() - sent > PING_S:
                    self._pings[part] = self._actors[part].status.remote(), time.monotonic()
                return False
            del self._pings[part]
            log.warning("support actor %d is back (%s)", part, status.where)
            self._keep_status(part, status)
            return True

    def _mark_out(self, part: int, why: str) -> None:
        """Count an actor as out, and ping it."""
        with self._lock:
            if part in self._pings:
                return
            log.warning(
                "support actor %d (%s) is %s: going on without its neighbours until it is back",
                part,
                self._status[part].where,
                why,
            )
            self._pings[part] = self._actors[part].status.remote(), time.monotonic()

    def _report_unwaited(self) -> None:
        """Log the failures of finished calls that nobody waits for."""
        with self._lock:
            waiting, self._unwaited = self._unwaited, []
            for part, ref in waiting:
                if ref is None:
                    continue
                if not ray.wait([ref], timeout=0)[0]:
                    self._unwaited.append((part, ref))
                    continue
                try:
                    ray.get(ref)
                except RayTaskError as error:
                    log.warning("support actor %d could not be filled: %s", part, error.cause)
                except RayError:
                    pass  # the actor died again; its next call reports that

    def _keep_status(self, part: int, status: Status) -> None:
        """Keep the newest state of an actor; call ``on_restart`` if it is another instance."""
        with self._lock:
            before = self._status.get(part)
            self._status[part] = status
        if before is not None and before.instance != status.instance:
            self._on_restart(part)
