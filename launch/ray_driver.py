"""The driver's wait for work that Ray does, while signals go to the workers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import ray

from primus_scale.stopping import Stop, stop_on_signals

POLL_S = 0.2  # between the driver's checks for its end


def run_stoppable(
    work: Callable[[], Any], channel: Any, reason_to_end: Callable[[bool], str]
) -> Any:
    """Return the result of ``work()``; meanwhile SIGTERM and Ctrl-C ask the workers to stop.

    ``work`` runs in another thread: in the main thread Ray Train would kill the workers at Ctrl-C.
    channel: a ``DriverChannel``. reason_to_end: called again and again after a signal. It takes
    whether a worker ran at every signal. It returns an empty text while a worker must be waited
    for, and the reason to end where none must. Then this process ends with the exit code of a
    stopped run.
    """
    outcome: Future[Any] = Future()
    ran: list[bool] = []  # for each signal, whether a worker ran then

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    def ask(interrupted: bool) -> None:
        ran.append(ray.get(channel.ask_to_stop.remote(interrupted)))

    with stop_on_signals(Stop(), ask) as stop:
        threading.Thread(target=run, name="primus-fit", daemon=True).start()
        while not wait([outcome], timeout=POLL_S).done:
            if ran and (why := reason_to_end(all(ran))):
                print(f"{why}; start again to go on", file=sys.stderr)
                raise SystemExit(stop.exit_code)
    return outcome.result()
