"""One run at a time on an output folder: the lock of ``run_lock``, on every rank.

with only_run(config.output):     # on every rank, at the same time
...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from primus_scale.distributed.collectives import on_first_rank
from primus_scale.distributed.run_lock import RunLock


@contextmanager
def only_run(output: str | Path) -> Iterator[None]:
    """Hold the lock of the folder ``output`` during the block; every rank calls it.

    OSError on all ranks where another run holds it, or where the folder cannot be written.
    """
    lock = RunLock(Path(output))
    on_first_rank(lock.acquire)
    try:
        yield
    finally:
        lock.release()
