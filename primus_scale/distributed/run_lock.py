"""One run at a time on an output folder, also across machines that share it.

    lock = RunLock(Path(config.output))
    lock.acquire()

``only_run`` does so on rank 0, for all ranks. The file ``run.lock`` in that folder describes its
holder, who rewrites it every few seconds (the *heartbeat*). If a dead holder left the file, the
next run takes it over:

- on the same machine at once: the system's lock on the open file (``flock``) ends with its process;
- on another machine, or on a file system without such locks, when the file has not changed for
  ``STALE_S`` on the clock of the waiting run. Clocks of two machines are never compared.
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
from contextlib import suppress
from pathlib import Path
from typing import Any

from primus_scale.storage.files import explain_failed_write

LOCK_FILE = "run.lock"
BEAT_S = 5.0  # between two heartbeats
STALE_S = 60.0  # without a heartbeat, the holder is dead; network file systems show changes late
ENDING_S = 5.0  # for a holder on this machine that is being killed to end
SETTLE_S = 2.0  # until the last of several runs that take over a file has written
LOOK_S = 0.25  # between two looks at the file of another holder
MOST_SHOWN = 255  # characters of a field of the lock, in messages
SIZE = 512  # bytes of the file, always: it is rewritten in place

log = logging.getLogger(__name__)


class RunLock:
    """The lock of one folder, held by this process between ``acquire`` and ``release``.

    instead: what the user may choose instead of a folder in use, for the message.
    """

    def __init__(self, folder: Path, instead: str = "another output") -> None:
        self._path = folder / LOCK_FILE
        self._instead = instead
        self._self = this_process()
        self._file: int | None = None
        self._beats = 0
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="primus-lock", daemon=True)

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
        self._heartbeat.start()

    def release(self) -> None:
        """Release the lock; does nothing where it is not held."""
        if self._file is None:
            return
        self._released.set()
        self._heartbeat.join()
        if self._holder() == self._self["holder"]:
            self._path.unlink()
        os.close(self._file)
        self._file = None

    def _create(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            self._write_holder()
        except OSError:  # a full disk: nobody shall wait for a lock without a holder
            os.close(self._file)
            self._file = None
            self._path.unlink()
            raise

    def _take_over(self) -> None:
        """Wait until the file's holder is known to be dead, then hold the file."""
        file = os.open(self._path, os.O_RDWR)
        try:
            sure = self._wait_for_free_lock(file)
            if os.fstat(file).st_ino != self._path.stat().st_ino:
                return  # the file was removed, and perhaps created again
            self._file, file = file, -1
            self._write_holder()
        finally:
            if file >= 0:
                os.close(file)
        if sure:
            return
        time.sleep(SETTLE_S)
        if self._holder() != self._self["holder"]:
            os.close(self._file)
            self._file = None

    def _wait_for_free_lock(self, file: int) -> bool:
        """Wait until the holder is dead. True where no other run can take the file as well.

        OSError as soon as the holder is known to be alive.
        """
        first = self._path.read_bytes()
        start = time.monotonic()
        reported = False
        while time.monotonic() < start + STALE_S:
            content = self._path.read_bytes()
            holder = parse_holder(content)
            if holder.get("flock") and holder.get("machine") == self._self["machine"]:
                if _try_flock(file):
                    return True
                if time.monotonic() > start + ENDING_S:
                    raise self._refusal(holder)
            elif content != first:
                raise self._refusal(holder)
            elif not reported:
                reported = True
                report_wait(str(self._path), holder, STALE_S)
            time.sleep(LOOK_S)
        return False

    def _refusal(self, holder: dict[str, Any]) -> OSError:
        return OSError(
            f"{self._path.parent} is in use by {describe_holder(holder)}; wait for its end, stop "
            f"it, or choose {self._instead}"
        )

    def _write_holder(self) -> None:
        assert self._file is not None
        content = {**self._self, "flock": _try_flock(self._file), "beats": self._beats}
        os.pwrite(self._file, json.dumps(content).ljust(SIZE).encode(), 0)
        os.fsync(self._file)

    def _is_ours(self) -> bool:
        """Whether the file in the folder is the one held here, and names this process."""
        assert self._file is not None
        try:
            seen = self._path.stat()
        except FileNotFoundError:  # another run took it over and released it
            return False
        ours = os.path.samestat(seen, os.fstat(self._file))
        return ours and self._holder() == self._self["holder"]

    def _holder(self) -> str | None:
        """The id of the holder that the file names; None where there is no file."""
        try:
            return str(parse_holder(self._path.read_bytes()).get("holder"))
        except FileNotFoundError:
            return None

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            self._beats += 1
            with suppress(OSError):  # a network file system may fail for a moment
                if not self._is_ours():
                    print(
                        f"{self._path} is another run's, or gone: it was taken over while this run "
                        f"was halted for more than {STALE_S:g} s, or removed; ending this run",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)  # before it writes another checkpoint
                self._write_holder()


def is_held(folder: Path) -> bool:
    """Whether a run works in ``folder`` now, as far as can be told without waiting.

    For a run on another machine the age of its last heartbeat decides.
    """
    try:
        file = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        holder = parse_holder(os.pread(file, SIZE, 0))
        if holder.get("flock") and holder.get("machine") == this_machine():
            return not _try_flock(file, fcntl.LOCK_SH)
        return time.time() - os.fstat(file).st_mtime < STALE_S
    finally:
        os.close(file)


def this_process() -> dict[str, Any]:
    """The description of this process as the holder of a lock."""
    return {
        "holder": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "machine": this_machine(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def this_machine() -> str:
    """An id of this machine, the same for all processes on one kernel, also in containers."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else socket.gethostname()


def _try_flock(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether this process now holds the lock on the open file (or held it before)."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:  # another holds it, or the file system knows no locks
        return False
    return True


def parse_holder(content: bytes) -> dict[str, Any]:
    """The holder that the file describes; empty where the file was created just now."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def report_wait(place: str, holder: dict[str, Any], stale_s: float) -> None:
    """Log that a lock may be left from a dead run, and how long this run waits."""
    described = describe_holder(holder)
    log.warning(
        "%s was left by %s; waiting up to %g s for a sign of life", place, described, stale_s
    )


def describe_holder(holder: dict[str, Any]) -> str:
    """Who holds a lock, for a message."""
    host = _printable(holder, "host", "an unknown host")
    pid, since = _printable(holder, "pid", "unknown"), _printable(holder, "since", "just now")
    return f"a run on {host} (pid {pid}, since {since})"


def _printable(holder: dict[str, Any], name: str, unknown: str) -> str:
    text = str(holder.get(name, unknown))
    return text if text.isprintable() and len(text) <= MOST_SHOWN else unknown
