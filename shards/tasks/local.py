"""Work on many items on this machine, without Ray: in forks of this process.

A fork takes milliseconds, where a Ray cluster takes seconds to start. A fork that dies on an item
harms no other, as with Ray.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from primus_scale.processes import ENDED, Died, open_processes

MOST_CRASHES = 2  # of processes on one item: one may be chance (memory, a lost node)


@dataclass(frozen=True)
class Failed:
    """The result of an item that failed. why: a sentence for the user."""

    why: str


def on_cluster() -> bool:
    """Whether ``RAY_ADDRESS`` names a cluster; a variable that is empty does not."""
    return bool(os.environ.get("RAY_ADDRESS"))


def runs_in_process(workers: int) -> bool:
    """Whether ``run_tasks`` with so many workers runs in this process."""
    return workers == 1 and not on_cluster()


def crashed(how: str) -> Failed:
    """The result of an item on which a process died ``MOST_CRASHES`` times."""
    return Failed(f"its process died {MOST_CRASHES} times ({how})")


def run_forked(
    make_worker: Callable[[], Callable[[Any], Any]], items: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any]]:
    """``shards.tasks.workers.run_tasks`` in at most ``workers`` forks, one for each item.

    The worker is built once, in this process.
    """
    worker, waiting = make_worker(), deque(range(len(items)))
    crashes: Counter[int] = Counter()
    done: set[int] = set()
    with open_processes(workers) as processes:
        while waiting or processes.busy:
            while waiting and not processes.full:
                place = waiting.popleft()
                processes.start(place, partial(_results, worker, items[place]))
            place, result = processes.wait()
            if isinstance(result, Died) and place in done:
                continue  # it died after its result
            if isinstance(result, Died):
                crashes[place] += 1
                if crashes[place] < MOST_CRASHES:
                    waiting.appendleft(place)
                else:
                    yield place, crashed(result.how)
            elif result is not ENDED:
                done.add(place)
                yield place, result


def _results(worker: Callable[[Any], Any], item: Any) -> Iterator[Any]:
    yield worker(item)
