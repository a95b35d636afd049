"""An actor between driver and workers: signals go to workers, a user's errors to the driver.

Ray passes no signal to workers, and starts them again whatever they raise. The module imports
little, since a process of its own runs it.
"""

from __future__ import annotations

import math
import time

WORKER_TIMEOUT_S = 5.0  # after the last request of a worker; then none runs


class DriverChannel:
    """Messages between the driver and the workers of one run, or of several runs at a time.

    run: the name of a run.
    """

    def __init__(self) -> None:
        self._stop = ""
        self._user_errors: dict[str, str] = {}
        self._training: set[str] = set()
        self._last_request_s = -math.inf  # time of a worker's last request

    def ask_to_stop(self, interrupted: bool) -> bool:
        """Ask all workers to stop; returns whether any worker runs. interrupted: by Ctrl-C."""
        self._stop = "interrupted" if interrupted else "stopped"
        return time.monotonic() - self._last_request_s < WORKER_TIMEOUT_S

    def stop_asked(self) -> str:
        """How workers were asked to stop, empty if they were not. Called by workers."""
        self._last_request_s = time.monotonic()
        return self._stop

    def report_user_error(self, run: str, message: str) -> None:
        """Keep the first message of a run: those of other workers may follow from it."""
        self._user_errors.setdefault(run, message)

    def user_error(self, run: str) -> str:
        """The message of an error that a restart cannot repair; empty where there is none."""
        return self._user_errors.get(run, "")

    def note_training(self, run: str, trains: bool) -> None:
        """Note that a run begins or ends its training, which a stop must wait for."""
        (self._training.add if trains else self._training.discard)(run)

    def is_training(self) -> bool:
        """Whether any run trains."""
        return bool(self._training)
