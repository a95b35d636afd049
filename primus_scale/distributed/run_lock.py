"""One run at a time on an output folder, also across machines that share it.

    with only_run(config.output):     # on every rank, at the same time
        ...

Rank 0 holds the file ``run.lock`` there, which says who it is, and rewrites it every few seconds.
Where it was left behind, the next run takes it over:

- on the same machine at once: a lock on the open file (``flock``) ends with its process;
- on another, or where the file system knows no such locks, when the file has not changed for
  ``STALE_S`` on the clock of the one that watches. Clocks of two machines are never compared.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from primus_scale.distributed.collectives import on_first_rank
from primus_scale.storage.files import explain_failed_write

LOCK_FILE = "run.lock"
BEAT_S = 5.0  # between two signs of life
STALE_S = 60.0  # without one, the holder is dead; network file systems show changes late
ENDING_S = 5.0  # left to a holder on this machine that is being killed
SETTLE_S = 2.0  # until of several that take over a file, the last has written
LOOK_S = 0.25
MOST_TOLD = 255  # characters of what a lock says of its holder
SIZE = 512  # of the file's content, always: it is rewritten in place

log = logging.getLogger(__name__)


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


class RunLock:
    """The lock of one folder, held by this process between ``acquire`` and ``release``.

    instead: what to choose where it is in use, for the message.
    """

    def __init__(self, folder: Path, instead: str = "another output") -> None:
        self._path = folder / LOCK_FILE
        self._instead = instead
        self._me = this_process()
        self._file: int | None = None
        self._beats = 0
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="primus-lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock. OSError naming who holds it, or the folder where it cannot be written."""
        with explain_failed_write(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        while self._file is None:
            try:
                with explain_failed_write(self._path):
                    self._create()
            except FileExistsError:
                with suppress(FileNotFoundError):  # released meanwhile
                    self._take_over()
        self._heart.start()

    def release(self) -> None:
        """Let the next run have the folder; may be called where the lock is not held."""
        if self._file is None:
            return
        self._released.set()
        self._heart.join()
        if self._holder() == self._me["holder"]:
            self._path.unlink()
        os.close(self._file)
        self._file = None

    def _create(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            self._sign()
        except OSError:  # a full disk: nobody shall wait for what is not a sign
            os.close(self._file)
            self._file = None
            self._path.unlink()
            raise

    def _take_over(self) -> None:
        """Wait until the file's holder is known to be dead, then sign in its place."""
        file = os.open(self._path, os.O_RDWR)
        try:
            sure = self._await_death(file)
            if os.fstat(file).st_ino != self._path.stat().st_ino:
                return  # it was removed, and perhaps made again
            self._file, file = file, -1
            self._sign()
        finally:
            if file >= 0:
                os.close(file)
        if sure:
            return
        time.sleep(SETTLE_S)
        if self._holder() != self._me["holder"]:
            os.close(self._file)
            self._file = None

    def _await_death(self, file: int) -> bool:
        """Return when the holder is dead: True where no other can have seen so, too.

        OSError as soon as it is known to be alive.
        """
        first = self._path.read_bytes()
        start = time.monotonic()
        told = False
        while time.monotonic() < start + STALE_S:
            content = self._path.read_bytes()
            holder = parse_holder(content)
            if holder.get("flock") and holder.get("machine") == self._me["machine"]:
                if _try_flock(file):
                    return True
                if time.monotonic() > start + ENDING_S:
                    raise self._refusal(holder)
            elif content != first:
                raise self._refusal(holder)
            elif not told:
                told = True
                tell_wait(str(self._path), holder, STALE_S)
            time.sleep(LOOK_S)
        return False

    def _refusal(self, holder: dict[str, Any]) -> OSError:
        return OSError(
            f"{self._path.parent} is in use by {describe_holder(holder)}; wait for its end, stop "
            f"it, or choose {self._instead}"
        )

    def _sign(self) -> None:
        assert self._file is not None
        content = {**self._me, "flock": _try_flock(self._file), "beats": self._beats}
        os.pwrite(self._file, json.dumps(content).ljust(SIZE).encode(), 0)
        os.fsync(self._file)

    def _is_ours(self) -> bool:
        """Whether the file that others see is the one held here, and signed by this process."""
        assert self._file is not None
        try:
            seen = self._path.stat()
        except FileNotFoundError:  # taken over, and released
            return False
        return os.path.samestat(seen, os.fstat(self._file)) and self._holder() == self._me["holder"]

    def _holder(self) -> str | None:
        """Who has signed the file; None where it is gone."""
        try:
            return str(parse_holder(self._path.read_bytes()).get("holder"))
        except FileNotFoundError:
            return None

    def _beat_on(self) -> None:
        while not self._released.wait(BEAT_S):
            self._beats += 1
            with suppress(OSError):  # a network file system that is away for a moment
                if not self._is_ours():
                    print(
                        f"{self._path} is another run's, or gone: it was taken over while this run "
                        f"was halted for more than {STALE_S:g} s, or removed; ending this run",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)  # before it writes another checkpoint
                self._sign()


def this_process() -> dict[str, Any]:
    """What a lock says of its holder, this process."""
    return {
        "holder": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "machine": this_machine(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def this_machine() -> str:
    """The same for all processes under one running kernel, in containers too."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else socket.gethostname()


def _try_flock(file: int) -> bool:
    """Whether this process now holds the lock on the open file (or held it before)."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another holds it, or the file system knows no locks
        return False
    return True


def parse_holder(content: bytes) -> dict[str, Any]:
    """What the file says; nothing where its holder has only just made it."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def tell_wait(place: str, holder: dict[str, Any], stale_s: float) -> None:
    """Tell that a lock was left behind, and how long it will be watched."""
    told = describe_holder(holder)
    log.warning("%s was left by %s; waiting up to %g s for a sign of life", place, told, stale_s)


def describe_holder(holder: dict[str, Any]) -> str:
    """Who holds a lock, for a message."""
    return (
        f"a run on {_told(holder, 'host', 'an unknown host')} "
        f"(pid {_told(holder, 'pid', 'unknown')}, since {_told(holder, 'since', 'just now')})"
    )


def _told(holder: dict[str, Any], name: str, unknown: str) -> str:
    text = str(holder.get(name, unknown))
    return text if text.isprintable() and len(text) <= MOST_TOLD else unknown
