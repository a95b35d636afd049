"""One program at a time on a folder at any URL.

    with held("s3://bucket/shards", instead="another --out"):
        ...

A local folder, mounted or not, has a lock of the system (``run_lock``). Object storage knows none,
so that there the holder is known by its beats alone: it rewrites the object ``run.lock`` every few
seconds, and who wants the folder watches whether that changes. Of two that write it at one time the
later is the holder, since storages show the last write to all; the other reads that when both have
settled, or at its next beat, and ends itself before it writes anything more. A holder that was
killed on this machine makes way at once, and one on another after ``STALE_S``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from primus_scale.distributed.run_lock import (
    ENDING_S,
    LOCK_FILE,
    SETTLE_S,
    RunLock,
    describe_holder,
    parse_holder,
    tell_wait,
    this_process,
)
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience

BEAT_S = 10.0  # between two signs of life: each is two requests
STALE_S = 60.0  # without one, the holder is dead
LOOK_S = 2.0
REQUEST_S = 10.0  # for one request of the beats


@contextmanager
def held(url: str, *, instead: str) -> Iterator[None]:
    """Hold the folder at ``url``, which is made, during the block.

    instead: what to choose where it is in use, for the message. OSError naming who holds it.
    """
    lock = storage_lock(Folder(url), instead=instead)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def storage_lock(folder: Folder, *, instead: str) -> RunLock | BeatLock:
    """The lock of a folder: one of the system where that is local, else one that beats."""
    local = folder.local_path
    return RunLock(local, instead) if local is not None else BeatLock(folder, instead)


class BeatLock:
    """The lock of a folder in object storage, between ``acquire`` and ``release``."""

    def __init__(self, folder: Folder, instead: str) -> None:
        self._folder = folder
        # A beat that fails is not repeated: the next one comes soon.
        self._beating = Folder(folder.url, Patience(REQUEST_S, 0.0))
        self._instead = instead
        self._me = {**this_process(), "process": own_process(os.getpid())}
        self._beats = 0
        self._held = False
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="primus-lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock. OSError naming who holds it, or where the storage does not answer."""
        self._await_death()
        self._sign(self._folder)
        time.sleep(SETTLE_S)
        holder = self._holder(self._folder)
        if holder.get("holder") != self._me["holder"]:
            raise self._refusal(holder)
        self._held = True
        self._heart.start()

    def release(self) -> None:
        """Let the next have the folder; may be called where the lock is not held."""
        if not self._held:
            return
        self._held = False
        self._released.set()
        self._heart.join()
        with suppress(OSError):  # else it will be seen to beat no more
            if self._holder(self._beating).get("holder") == self._me["holder"]:
                self._beating.remove(LOCK_FILE)

    def _await_death(self) -> None:
        """Return when no holder is alive. OSError as soon as one is known to be."""
        first = holder = self._holder(self._folder)
        start = time.monotonic()
        told = False
        while holder:
            alive = is_running(holder.get("process"))
            waited_s = time.monotonic() - start
            if holder != first or (alive and waited_s > ENDING_S):
                raise self._refusal(holder)
            if alive is False or waited_s > STALE_S:
                return
            if alive is None and not told:
                told = True
                tell_wait(self._folder.locate(LOCK_FILE), holder, STALE_S)
            time.sleep(LOOK_S)
            holder = self._holder(self._folder)

    def _holder(self, folder: Folder) -> dict[str, Any]:
        """What the object says; empty where there is none."""
        try:
            return parse_holder(folder.read(LOCK_FILE)) or {"holder": None}
        except FileNotFoundError:
            return {}

    def _sign(self, folder: Folder) -> None:
        text = json.dumps({**self._me, "beats": self._beats})
        with folder.staging(LOCK_FILE) as path:
            path.write_text(text, encoding="utf-8")

    def _refusal(self, holder: dict[str, Any]) -> OSError:
        return OSError(
            f"{self._folder.url} is in use by {describe_holder(holder)}; wait for its end, stop "
            f"it, or choose {self._instead}"
        )

    def _beat_on(self) -> None:
        while not self._released.wait(BEAT_S):
            self._beats += 1
            with suppress(OSError, ValueError):  # storage that is away for a moment
                holder = self._holder(self._beating)
                if holder.get("holder") != self._me["holder"]:
                    print(
                        f"{self._folder.locate(LOCK_FILE)} is that of {describe_holder(holder)}, "
                        f"or gone: it was taken over while this program was halted for more than "
                        f"{STALE_S:g} s, or removed; ending this program",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)  # before it writes anything more
                self._sign(self._beating)


def own_process(pid: int) -> list[Any] | None:
    """What tells a process from all others of all machines; None where the system cannot say.

    The running kernel, the namespace of process numbers, the number, and when it started.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        # The second field is a name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else [boot, namespace, pid, int(fields[19])]


def is_running(process: Any) -> bool | None:
    """Whether a process that ``own_process`` described runs; None where this one cannot know."""
    here = own_process(os.getpid())
    if here is None or not isinstance(process, list) or process[:2] != here[:2]:
        return None
    return len(process) == 4 and isinstance(process[2], int) and own_process(process[2]) == process
