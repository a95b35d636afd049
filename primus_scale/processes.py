"""Work in several processes that are forks of this one, or in this one.

    with open_processes(jobs) as processes:
        processes.start("a", work)          # work() -> iterator
        tag, item = processes.wait()        # an item of one of them, ENDED, or Died(...)

A fork takes milliseconds, where a new process would import torch for seconds, and it shares the
memory of this process: windows and features are not copied. Each piece of work has a process of its
own, which ends with it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Protocol, Self

from primus_scale.stopping import ignore_interrupts_in_children

ENDED = object()  # what ``wait`` gives instead of an item where a piece of work has ended
KILLED = -9
Work = Callable[[], Iterator[Any]]

_PARENT_CHECK_S = 1.0  # between a process's checks that its parent still runs


@dataclass(frozen=True)
class Died:
    """What ``wait`` gives where a process ended before its work; how: a clause for the user."""

    how: str


class Processes(Protocol):
    """Where pieces of work run, at most so many at once."""

    @property
    def busy(self) -> bool:
        """Whether some work has not ended."""

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""

    def start(self, tag: Any, work: Work) -> None:
        """Begin ``work()``; its items and its end come with ``tag``."""

    def wait(self) -> tuple[Any, Any]:
        """The next tag and item, ``ENDED`` or ``Died``. Raises what the work raised."""


def open_processes(jobs: int) -> AbstractContextManager[Processes]:
    """``jobs`` forked processes at once; with one, the work is done in this process, by ``wait``.

    The end of the block ends them all. No other thread of this process may hold a lock that the
    work needs, and nothing may have been computed on a GPU.
    """
    return _InProcess() if jobs == 1 else _Forked(jobs)


class _InProcess(AbstractContextManager["_InProcess"]):
    def __init__(self) -> None:
        self._running: tuple[Any, Iterator[Any]] | None = None

    def __exit__(self, *_: object) -> None:
        self._running = None

    @property
    def busy(self) -> bool:
        return self._running is not None

    @property
    def full(self) -> bool:
        return self.busy

    def start(self, tag: Any, work: Work) -> None:
        assert self._running is None
        self._running = tag, work()

    def wait(self) -> tuple[Any, Any]:
        assert self._running is not None
        tag, items = self._running
        item = next(items, ENDED)
        if item is ENDED:
            self._running = None
        return tag, item


class _Forked(AbstractContextManager["_Forked"]):
    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._running: dict[Connection, tuple[Any, ForkProcess]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, process in self._running.values():
            process.kill()
        for _, process in self._running.values():
            process.join()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._jobs

    def start(self, tag: Any, work: Work) -> None:
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(work, sender, os.getpid()), daemon=True)
        with ignore_interrupts_in_children(), _without_collecting():
            process.start()
        sender.close()  # so that the pipe ends with the process
        self._running[receiver] = tag, process

    def wait(self) -> tuple[Any, Any]:
        receiver = wait([*self._running])[0]
        assert isinstance(receiver, Connection)
        tag, process = self._running[receiver]
        try:
            kind, item = receiver.recv()
        except (EOFError, OSError):  # it ended between items, or within one
            kind, item = "died", None
        if kind == "item":
            return tag, item
        receiver.close()
        process.join()
        del self._running[receiver]
        if kind == "error":
            raise item
        return tag, ENDED if kind == "end" else Died(_how_ended(process.exitcode))


def _serve(work: Work, sender: Connection, parent: int) -> None:
    """Send the items of ``work()``, and then how it ended."""
    gc.freeze()  # what it was forked with is never collected here: see _without_collecting
    gc.enable()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        for item in work():
            sender.send(("item", item))
        end: tuple[str, Any] = ("end", None)
    except Exception as error:
        if not isinstance(error, (ValueError, OSError)):  # those tell a user what to do
            error.add_note(traceback.format_exc())  # a traceback is not pickled
        end = "error", error
    sender.send(end)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Fork within this block: the fork begins with garbage collection off.

    What the caller has left to be collected may own threads, which a fork does not have: in a fork
    that collected it, the end of a gloo group waited for its threads for ever, or aborted.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _how_ended(code: int | None) -> str:
    if code == KILLED:
        return "it was killed, perhaps for want of memory"
    return f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, which a kill does not let it tell."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
