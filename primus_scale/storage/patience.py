"""Patience with storage: what may pass is tried again for a while, all else is raised at once.

    patience = Patience(timeout_s=30, total_s=300)
    data = patience.call("s3://bucket/index.json", lambda: begin(file_system, "cat_file", path))

A request that neither answers nor fails is cut after ``timeout_s``. One that fails is repeated with
growing pauses, drawn at random so that many ranks do not come back in step (exponential back-off
with jitter), until ``total_s`` have gone by since its first failure. File systems repeat requests
themselves (s3fs five times), so what comes here has lasted some seconds already.
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
LOOK_S = 0.2  # how soon a request that is under way hears of ``end``
QUIET_S = 10.0  # between the outages that are told: many short ones are no flood

# What no waiting mends. Anything else may pass: there are too many kinds to list, and a wait that
# was for nothing has told its cause at the beginning.
_LASTING = (
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
_LASTING_CODES = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC)
_PASSING_STATUS = (408, 425, 429)  # of the HTTP statuses 4xx, which else say that we are wrong

T = TypeVar("T")
log = logging.getLogger(__name__)


class Patience:
    """How long requests may take and be repeated; shared by those whose outage is one.

    retries: requests repeated so far. May be used by many threads; a copy that crosses to another
    process starts afresh.
    """

    def __init__(self, timeout_s: float = 30.0, total_s: float = 300.0) -> None:
        self.timeout_s = timeout_s
        self.total_s = total_s
        self.retries = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0  # requests
        self._since = 0.0
        self._told = -QUIET_S
        self._telling = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Patience, (self.timeout_s, self.total_s)

    def call(self, url: str, begin: Callable[[], Future[T]], size: int = 0) -> T:
        """The result of the request that ``begin`` starts, repeated while its failure may pass.

        size: bytes that it moves, where known. Raises what will not pass as it is, bad credentials
        as PermissionError, and ConnectionError or TimeoutError naming ``url`` where patience ends.
        """
        limit_s = self.timeout_s * (1 + size // BYTES_A_TIMEOUT)
        failed_at: float | None = None
        answered = False
        try:
            for attempt in itertools.count():
                try:
                    result = self._result(begin(), limit_s)
                except Exception as error:
                    _raise_if_lasting(url, error)
                    if self._ended.is_set():
                        raise
                    if failed_at is None:
                        failed_at = time.monotonic()
                        self._begin_wait(url, error)
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
                self._end_wait(url, answered)
        raise AssertionError("the loop above has no other end")

    def end(self) -> None:
        """Wait no longer: requests under way are dropped, and raise ConnectionAbortedError."""
        self._ended.set()

    def _result(self, request: Future[T], limit_s: float) -> T:
        end = time.monotonic() + limit_s
        while not self._ended.is_set() and time.monotonic() < end:
            if wait([request], timeout=min(LOOK_S, limit_s)).done:
                try:
                    return request.result()
                except (CancelledError, asyncio.CancelledError) as error:
                    raise ConnectionAbortedError("the request was dropped") from error
        request.cancel()
        if self._ended.is_set():
            raise ConnectionAbortedError("reading was ended")
        raise TimeoutError(f"no answer within {limit_s:g} s")

    def _begin_wait(self, url: str, error: Exception) -> None:
        with self._lock:
            self._waiting += 1
            now = time.monotonic()
            if self._waiting > 1:
                return
            self._since, self._telling = now, now - self._told >= QUIET_S
            if self._telling:
                self._told = now
                log.warning(
                    "%s does not answer (%s); waiting for it, up to %g s",
                    url,
                    _describe(error),
                    self.total_s,
                )

    def _end_wait(self, url: str, answered: bool) -> None:
        with self._lock:
            self._waiting -= 1
            if self._telling and answered and not self._waiting:
                waited_s = time.monotonic() - self._since
                log.warning("%s answers again after %.1f s; going on", url, waited_s)

    def _exhausted(self, url: str, error: Exception) -> OSError:
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
        return kind(
            f"{url} has not answered for {self.total_s:g} s ({_describe(error)}); check the "
            "storage and the way to it, then start again (data.patience_s says how long to wait)"
        )


def begin(file_system: Any, method: str, *arguments: Any, **options: Any) -> Future[Any]:
    """Start ``file_system.method(...)`` without waiting for it.

    A coroutine of its own, where it has one, is truly cancelled with the future; a thread is left
    behind, which is why it is a daemon.
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


def _raise_if_lasting(url: str, error: Exception) -> None:
    """Raise ``error`` where it will not pass."""
    if "Credential" in type(error).__name__:  # each cloud's library has a class of its own
        raise PermissionError(f"{url}: {error}; check the credentials") from error
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
    code = getattr(error, "errno", None)
    if refused or isinstance(error, _LASTING) or code in _LASTING_CODES:
        raise error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0]
