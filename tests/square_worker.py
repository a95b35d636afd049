"""A worker that other processes can import, for tests of ``shards.tasks.workers``."""

import os
from collections.abc import Callable


def make_worker() -> Callable[[int], int]:
    """Squares numbers, refuses 7, and takes its process down at 13."""
    return _square


def _square(number: int) -> int:
    if number == 7:
        raise ValueError("seven is not to be squared; leave it out")
    if number == 13:
        os._exit(1)
    return number * number
