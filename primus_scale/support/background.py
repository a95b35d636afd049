"""Build an index in a thread while searches go on: FAISS and torch release the GIL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def run_in_thread(work: Callable[[], Result], *, wait: bool) -> Future[Result]:
    """Do ``work`` in a thread, or, with ``wait``, before returning.

    Python waits for the thread when it exits, so long work should check ``still_needed`` every few
    seconds.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # ``Future.result`` raises it
            future.set_exception(error)

    if wait:
        run()
    else:
        threading.Thread(target=run, name="support index").start()
    return future


def still_needed() -> bool:
    """Whether a result can still be used: False once the main thread has ended."""
    return threading.main_thread().is_alive()
