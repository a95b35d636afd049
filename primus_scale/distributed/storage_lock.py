"""One program at a time on a folder at any URL.

    with locked_folder("s3://bucket/shards", instead="another --out"):
        ...

A local or mounted folder has a lock of the system (``run_lock``). Object storage has none. There
the holder rewrites the object ``run.lock`` every few seconds (the *heartbeat*). Another program
that needs the folder watches whether the object changes. If two programs write it at the same time,
the later one is the holder, since all readers see the last write. The other one reads that after
``SETTLE_S``, or at its next heartbeat, and ends before it writes anything else. If the holder is
killed, its lock is free at once for programs on the same machine, and elsewhere after ``STALE_S``.
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
    report_wait,
    this_process,
)
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience

BEAT_S = 10.0  # between two heartbeats, each of two requests
STALE_S = 60.0  # after so long without a heartbeat the holder counts as dead
LOOK_S = 2.0  # between two looks at the object of another holder
REQUEST_S = 10.0  # for one request of a heartbeat


@contextmanager
def locked_folder(url: str, *, instead: str) -> Iterator[None]:
    """Hold the lock of the folder at ``url`` during the block; makes the folder.

    instead: what the user may choose instead of a folder in use, for the message. OSError naming
    the holder where it is in use.
    """
    lock = storage_lock(Folder(url), instead=instead)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def storage_lock(folder: Folder, *, instead: str) -> RunLock | HeartbeatLock:
    """The lock of a folder: the system's if the folder is local, otherwise one with heartbeats."""
    local = folder.local_path
    return RunLock(local, instead) if local is not None else HeartbeatLock(folder, instead)


class HeartbeatLock:
    """The lock of a folder in object storage, between ``acquire`` and ``release``."""

    def __init__(self, folder: Folder, instead: str) -> None:
        self._folder = folder
        # A heartbeat that fails is not repeated: the next one comes soon.
        self._beat_folder = Folder(folder.url, Patience(REQUEST_S, 0.0))
        self._instead = instead
        self._self = {**this_process(), "process": own_process(os.getpid())}
        self._beats = 0
        self._held = False
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="primus-lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock. OSError naming who holds it, or where the storage does not answer."""
        self._wait_for_free_lock()
        self._write_holder(self._folder)
        time.sleep(SETTLE_S)
        holder = self._holder(self._folder)
        if holder.get("holder") != self._self["holder"]:
            raise self._refusal(holder)
        self._held = True
        self._heartbeat.start()

    def release(self) -> None:
        """Release the lock; does nothing where it is not held."""
        if not self._held:
            return
        self._held = False
        self._released.set()
        self._heartbeat.join()
        with suppress(OSError):  # if it cannot be removed, others wait for ``STALE_S``
            if self._holder(self._beat_folder).get("holder") == self._self["holder"]:
                self._beat_folder.remove(LOCK_FILE)

    def _wait_for_free_lock(self) -> None:
        """Wait until it is known that no holder is alive. OSError as soon as one is found alive."""
        first = holder = self._holder(self._folder)
        start = time.monotonic()
        reported = False
        while holder:
            alive = is_running(holder.get("process"))
            waited_s = time.monotonic() - start
            if holder != first or (alive and waited_s > ENDING_S):
                raise self._refusal(holder)
            if alive is False or waited_s > STALE_S:
                return
            if alive is None and not reported:
                reported = True
                report_wait(self._folder.locate(LOCK_FILE), holder, STALE_S)
            time.sleep(LOOK_S)
            holder = self._holder(self._folder)

    def _holder(self, folder: Folder) -> dict[str, Any]:
        """The holder that the object describes; empty where there is no object."""
        try:
            return parse_holder(folder.read(LOCK_FILE)) or {"holder": None}
        except FileNotFoundError:
            return {}

    def _write_holder(self, folder: Folder) -> None:
        text = json.dumps({**self._self, "beats": self._beats})
        with folder.staging(LOCK_FILE) as path:
            path.write_text(text, encoding="utf-8")

    def _refusal(self, holder: dict[str, Any]) -> OSError:
        return OSError(
            f"{self._folder.url} is in use by {describe_holder(holder)}; wait for its end, stop "
            f"it, or choose {self._instead}"
        )

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            self._beats += 1
            with suppress(OSError, ValueError):  # storage may fail for a moment
                holder = self._holder(self._beat_folder)
                if holder.get("holder") != self._self["holder"]:
                    print(
                        f"{self._folder.locate(LOCK_FILE)} is that of {describe_holder(holder)}, "
                        f"or gone: it was taken over while this program was halted for more than "
                        f"{STALE_S:g} s, or removed; ending this program",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)  # before it writes anything more
                self._write_holder(self._beat_folder)


def own_process(pid: int) -> list[Any] | None:
    """An id of a process, unique over all machines; None where the system does not give it.

    It holds the boot id of the kernel, the namespace of process numbers, the number, and the time
    when the process started.
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
    """Whether the process with an id of ``own_process`` runs; None where it is elsewhere."""
    here = own_process(os.getpid())
    if here is None or not isinstance(process, list) or process[:2] != here[:2]:
        return None
    return len(process) == 4 and isinstance(process[2], int) and own_process(process[2]) == process
