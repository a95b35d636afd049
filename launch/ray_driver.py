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
    work: Callable[[], Any], channel: Any, nothing_runs: Callable[[bool], str]
) -> Any:
    """What ``work()`` gives, while SIGTERM and Ctrl-C ask the workers to stop.

    It runs in another thread: in the main thread Ray Train would kill the workers at Ctrl-C.
    channel: a ``DriverChannel``. nothing_runs: called after a signal until it says, not empty, why
    nobody must be waited for; this process then ends with the exit code of a stopped run. It gets
    whether a worker ran at every signal.
    """
    outcome: Future[Any] = Future()
    ran: list[bool] = []  # by signal: whether a worker ran then

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
            if ran and (why := nothing_runs(all(ran))):
                print(f"{why}; start again to go on", file=sys.stderr)
                raise SystemExit(stop.exit_code)
    return outcome.result()
