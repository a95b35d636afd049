"""Ends a rank whose launcher is gone, so that no rank outlives it.

    with stop_with_launcher(REQUEUE) as stop:
        return pretrain(config, stop)

A launcher that gets SIGTERM usually stops its ranks. A launcher that is killed cannot, and
``deepspeed`` does not: its command ends at SIGTERM, and the process that it started goes on with
its ranks. So each rank notes the processes from its parent up to the topmost part of a launcher,
and checks every second that all of them run. Processes above (such as a login shell) do not count.
A rank that no known launcher started is not watched.

Import this module first: a launcher that ends before the import is not found.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from primus_scale.stopping import Stop

POLL_S = 1.0
# Enough for a checkpoint of the largest runs; a rank that takes longer waits for ended ranks.
GRACE_S = 300.0
# Words of a launcher's command line: a program, by its base name, or a module.
PROGRAMS = frozenset(
    {
        "deepspeed",
        "deepspeed.launcher.runner",
        "deepspeed.launcher.launch",
        "torchrun",
        "torch.distributed.run",
    }
)
SLURM = "slurmstepd"  # starts srun's tasks; its command line names no program


def _is_launcher(process: psutil.Process) -> bool:
    try:
        words = {Path(word).name for word in process.cmdline()}
        return process.name() == SLURM or not words.isdisjoint(PROGRAMS)
    except psutil.Error:  # it has ended, or belongs to another user
        return False


def find_launcher() -> list[psutil.Process]:
    """The processes from this one's parent up to the topmost part of a launcher; maybe none."""
    ancestors = psutil.Process().parents()
    while ancestors and not _is_launcher(ancestors[-1]):
        ancestors.pop()
    return ancestors


LAUNCHER = find_launcher()


@contextmanager
def stop_with_launcher(
    exit_code: int, launcher: Sequence[psutil.Process] = LAUNCHER, grace_s: float = GRACE_S
) -> Iterator[Stop]:
    """A ``Stop`` that is set when one of ``launcher`` is gone.

    If the block does not end within ``grace_s`` after that, it is blocked in a collective whose
    other ranks have ended. Then the process ends at once, with ``exit_code``. With ``grace_s=0`` it
    ends as soon as the launcher is gone.
    """
    from primus_scale.stopping import Stop  # here: it takes long, and the launcher is known by now

    stop, done = Stop(), threading.Event()

    def watch() -> None:
        while all(_runs(process) for process in launcher):
            if done.wait(POLL_S):
                return
        if grace_s:
            _print_to_stderr("its launcher is gone; stopping after a checkpoint")
        stop.set()
        if not done.wait(grace_s):
            reason = f"could not stop within {grace_s:g} s" if grace_s else "its launcher is gone"
            _print_to_stderr(f"{reason}; ending at once")
            os._exit(exit_code)

    watcher = threading.Thread(target=watch, name="primus-launcher", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _print_to_stderr(what: str) -> None:
    with suppress(OSError):  # its reader may have ended, too
        print(f"rank {os.environ.get('RANK', '?')}: {what}", file=sys.stderr, flush=True)
