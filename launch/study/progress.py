"""Lines on the progress of a study, printed when Ray Tune reports on a trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray import tune

from primus_scale.monitor.progress import format_seconds
from primus_scale.study.records import read_records


class Progress(tune.Callback):
    """Prints a line when a trial validates, ends or fails, with the time left.

    out: the folder of the study; total: of its trials. Tune keeps it with its records, so it holds
    plain values and counts again when a study goes on.
    """

    def __init__(self, out: str, total: int) -> None:
        self._out = out
        self._total = total
        self.setup()

    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Begin to count."""
        self._begun = time.monotonic()
        self._before = self._finished()
        self._ended = 0  # finished or failed, in this start of the study
        self._failed = 0

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """A trial has validated."""
        if "step" in result and "result" not in result:
            figures = (f"{name} {value:.3f}" for name, value in _figures(result))
            self._say(trial, f"step {result['step']}/{result['steps']} | {' '.join(figures)}")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial is finished."""
        self._ended += 1
        self._say(trial, f"finished | {trial.last_result.get('result', '')}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has failed; its error is listed at the end."""
        self._ended += 1
        self._failed += 1
        self._say(trial, "failed")

    def _say(self, trial: Any, what: str) -> None:
        done = self._before + self._ended
        left = ""
        if self._ended and done < self._total:
            seconds = (time.monotonic() - self._begun) / self._ended * (self._total - done)
            left = f" | {format_seconds(seconds)} left"
        failed = f", {self._failed} failed" if self._failed else ""
        print(f"[{done} of {self._total} done{failed}] {trial}: {what}{left}", flush=True)

    def _finished(self) -> int:
        return len(read_records(Path(self._out)))


def _figures(result: Any) -> list[tuple[str, float]]:
    """The loss and the recalls of a validation."""
    named = {name: value for name, value in result.items() if "_to_" in name or name == "loss"}
    return [(name, value) for name, value in named.items() if isinstance(value, float)]
