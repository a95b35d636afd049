"""Whole commands, as a user starts them: their seconds, and the CPU seconds of their processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

COMMAND = (sys.executable, "-m", "primus_scale.cli")


class Taken(NamedTuple):
    """Seconds on the clock, and of CPU in the process and those that it waited for."""

    wall_s: float
    cpu_s: float


def run_timed(command: Sequence[str], **environment: str) -> Taken:
    """What a command takes; ChildProcessError with the end of its output where it fails."""
    before, start = _cpu_of_children(), time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    wall_s = time.perf_counter() - start
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise ChildProcessError(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return Taken(wall_s, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
