"""Ends a rank whose launcher is gone, so that no rank outlives it.

    with stop_with_launcher(REQUEUE) as stop:
        return pretrain(config, stop)

A launcher that is told to end tells its ranks, most of the time. One that is killed cannot, and
``deepspeed`` forgets: its command ends at SIGTERM, and leaves the process that it started, and that
one's ranks, behind. So a rank remembers the processes from its parent up to the topmost one that is
part of a launcher, and looks every second whether all of them are there. What is above (the shell
of somebody who logs out) does not count, and a process that no known launcher started is let be.

Import it before anything that takes long: a launcher that ends before that is not known.
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

LOOK_S = 1.0
# Enough for a checkpoint of the largest runs; who takes longer waits for ranks that are gone.
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
SLURM = "slurmstepd"  # started srun's task; its command line is a title


def _is_launcher(process: psutil.Process) -> bool:
    try:
        words = {Path(word).name for word in process.cmdline()}
        return process.name() == SLURM or not words.isdisjoint(PROGRAMS)
    except psutil.Error:  # it has ended, or belongs to somebody else
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

    Where the block does not end within ``grace_s`` from then on, the process does, at once, with
    ``exit_code``: it is blocked in a collective whose other ranks have gone before. With
    ``grace_s=0`` there is nothing to stop in order, and no word of it.
    """
    from primus_scale.stopping import Stop  # here: it takes long, and the ancestors are known now

    stop, done = Stop(), threading.Event()

    def watch() -> None:
        while all(_is_there(process) for process in launcher):
            if done.wait(LOOK_S):
                return
        if grace_s:
            _say("its launcher is gone; stopping after a checkpoint")
        stop.set()
        if not done.wait(grace_s):
            reason = f"could not stop within {grace_s:g} s" if grace_s else "its launcher is gone"
            _say(f"{reason}; ending at once")
            os._exit(exit_code)

    watcher = threading.Thread(target=watch, name="primus-launcher", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()


def _is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _say(what: str) -> None:
    with suppress(OSError):  # who read it may be gone, too
        print(f"rank {os.environ.get('RANK', '?')}: {what}", file=sys.stderr, flush=True)
