"""Work on many items at once: Ray workers, forks of this process, or this process alone.

    for place, result in run_tasks(make_worker, items, workers=8):
        ...

``make_worker()`` is called once in each worker and returns the function that is applied to items,
so that a reader or a teacher is built once, not for each item. One worker without a cluster is this
process itself: nothing is started, and a debugger works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from shards.tasks.local import on_cluster, run_forked, runs_in_process


def run_tasks(
    make_worker: Callable[[], Callable[[Any], Any]],
    items: Sequence[Any],
    *,
    workers: int,
    threads: int = 1,
    gpus: float = 0.0,
    small: bool = False,
    report: Callable[[str], None] = print,
) -> Iterator[tuple[int, Any]]:
    """Apply a worker's function to every item; yields place and result as they come.

    workers: at most so many at once, each with ``threads`` cores and ``gpus`` devices (a share of
    one, or several); those without room in the cluster start later. small: the work takes less
    than the start of a cluster, so without ``RAY_ADDRESS`` the workers are forks. report: called
    where there is room for none. Results travel between processes, and to Ray workers functions
    and items too, so they are pickled.

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
    if small and not on_cluster():
        yield from run_forked(make_worker, items, workers)
        return
    from shards.tasks.ray_workers import run_on_ray  # ray takes a second to import

    settings: dict[str, Any] = {"threads": threads, "gpus": gpus, "report": report}
    yield from run_on_ray(make_worker, items, workers=workers, **settings)
