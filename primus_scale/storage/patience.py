"""How long to wait for storage: temporary errors are retried, permanent ones raised at once.

    patience = Patience(timeout_s=30, total_s=300)
    data = patience.call("s3://bucket/index.json", lambda: begin(file_system, "cat_file", path))

A request that does not answer fails after ``timeout_s``. A request that fails is repeated until
``total_s`` seconds after its first failure. The pauses grow and are random (exponential back-off
with jitter), so that many ranks do not retry at the same time. File systems retry by themselves
before (s3fs five times), so an error that arrives here has lasted some seconds already.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
BYTES_A_TIMEOUT = 64 * 2**20  # a request may take timeout_s for each so many bytes
POLL_S = 0.2  # between checks whether ``end`` was called while a request runs
QUIET_S = 10.0  # least time between two warnings: many short outages do not fill the log

# Permanent errors. All others are retried: there are too many kinds to list, and the warning at
# the first failure names the cause.
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    NotImplementedError,
)
_PERMANENT_CODES = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC)
_TEMPORARY_STATUS = (408, 425, 429)  # HTTP; all other 4xx mean that the request is wrong

T = TypeVar("T")
log = logging.getLogger(__name__)


class Patience:
    """How long requests may take, and how long failed ones are repeated.

    All requests to one storage share an object, so that an outage is reported once. retries:
    requests repeated so far. Many threads may use it. A copy in another process counts from 0.
    """

    def __init__(self, timeout_s: float = 30.0, total_s: float = 300.0) -> None:
        self.timeout_s = timeout_s
        self.total_s = total_s
        self.retries = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0  # number of requests that are being repeated
        self._outage_start = 0.0
        self._last_warning = -QUIET_S
        self._warned = False  # about the present outage

    def __reduce__(self) -> tuple[Any, ...]:
        return Patience, (self.timeout_s, self.total_s)

    def call(self, url: str, start: Callable[[], Future[T]], size: int = 0) -> T:
        """The result of a request, which is repeated after failures that may be temporary.

        start: starts the request; it is called once for each attempt. size: bytes that the request
        moves, where known. Raises a permanent error as it is, but bad credentials as
        PermissionError. Raises ConnectionError or TimeoutError naming ``url`` after ``total_s``.
        """
        limit_s = self.timeout_s * (1 + size // BYTES_A_TIMEOUT)
        failed_at: float | None = None
        answered = False
        try:
            for attempt in itertools.count():
                try:
                    result = self._result(start(), limit_s)
                except Exception as error:
                    _raise_if_permanent(url, error)
                    if self._ended.is_set():
                        raise
                    if failed_at is None:
                        failed_at = time.monotonic()
                        self._start_waiting(url, error)
                    pause_s = min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)
                    pause_s *= random.uniform(0.5, 1.0)
                    if time.monotonic() + pause_s > failed_at + self.total_s:
                        raise self._exhausted(url, error) from error
                else:
                    answered = True
                    return result
                self._ended.wait(pause_s)
                self.retries += 1
        finally:
            if failed_at is not None:
                self._stop_waiting(url, answered)
        raise AssertionError("the loop above has no other end")

    def end(self) -> None:
        """Stop waiting: running requests are dropped and raise ConnectionAbortedError."""
        self._ended.set()

    def _result(self, request: Future[T], limit_s: float) -> T:
        end = time.monotonic() + limit_s
        while not self._ended.is_set() and time.monotonic() < end:
            if wait([request], timeout=min(POLL_S, limit_s)).done:
                try:
                    return request.result()
                except (CancelledError, asyncio.CancelledError) as error:
                    raise ConnectionAbortedError("the request was dropped") from error
        request.cancel()
        if self._ended.is_set():
            raise ConnectionAbortedError("reading was ended")
        raise TimeoutError(f"no answer within {limit_s:g} s")

    def _start_waiting(self, url: str, error: Exception) -> None:
        """Count a request that is repeated; warn of the outage if it is the first."""
        with self._lock:
            self._waiting += 1
            now = time.monotonic()
            if self._waiting > 1:
                return
            self._outage_start, self._warned = now, now - self._last_warning >= QUIET_S
            if self._warned:
                self._last_warning = now
                log.warning(
                    "%s does not answer (%s); waiting for it, up to %g s",
                    url,
                    _describe(error),
                    self.total_s,
                )

    def _stop_waiting(self, url: str, answered: bool) -> None:
        """Count a request that was answered or given up; report the end of the outage."""
        with self._lock:
            self._waiting -= 1
            if self._warned and answered and not self._waiting:
                waited_s = time.monotonic() - self._outage_start
                log.warning("%s answers again after %.1f s; going on", url, waited_s)

    def _exhausted(self, url: str, error: Exception) -> OSError:
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
        return kind(
            f"{url} has not answered for {self.total_s:g} s ({_describe(error)}); check the "
            "storage and the way to it, then start again (data.patience_s says how long to wait)"
        )


def start_request(file_system: Any, method: str, *arguments: Any, **options: Any) -> Future[Any]:
    """Start ``file_system.method(...)`` without waiting for its result.

    An asynchronous file system runs a coroutine, which ``Future.cancel`` really ends. Any other
    runs in a thread, which cannot be ended: it is a daemon, so that Python need not wait for it.
    """
    if isinstance(file_system, AsyncFileSystem):
        coroutine = getattr(file_system, f"_{method}")(*arguments, **options)
        return asyncio.run_coroutine_threadsafe(coroutine, file_system.loop)
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(getattr(file_system, method)(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="primus-request", daemon=True).start()
    return future


def _raise_if_permanent(url: str, error: Exception) -> None:
    """Raise ``error`` where repeating the request cannot help."""
    if "Credential" in type(error).__name__:  # each cloud's library has a class of its own
        raise PermissionError(f"{url}: {error}; check the credentials") from error
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _TEMPORARY_STATUS
    code = getattr(error, "errno", None)
    if refused or isinstance(error, _PERMANENT) or code in _PERMANENT_CODES:
        raise error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0]
