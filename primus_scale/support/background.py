"""Work that an index does in a thread while it is searched: FAISS and torch release the GIL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def start(work: Callable[[], Result], *, wait: bool) -> Future[Result]:
    """Do ``work`` in a thread, or, where ``wait``, before returning.

    Python waits for the thread when it exits: work of more than some seconds should look whether
    it is ``wanted`` every now and then.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # is raised where the result is asked for
            future.set_exception(error)

    if wait:
        run()
    else:
        threading.Thread(target=run, name="support index").start()
    return future


def wanted() -> bool:
    """Whether anybody still waits for a result: False once the main thread has ended."""
    return threading.main_thread().is_alive()
