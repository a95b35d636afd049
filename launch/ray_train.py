r"""Pretraining as a Ray Train job: Ray starts the workers, DeepSpeed trains in their group.

    python -m launch.ray_train --config configs/demo.yaml [key=value ...]
    ray job submit --working-dir . -- python -m launch.ray_train --config configs/scale.yaml \
        output=/shared/runs/scale

With ``RAY_ADDRESS`` set (a submitted job has it) the workers run on that cluster, otherwise on a
local one that lasts as long as the run. A worker that dies is replaced up to
``launch.max_failures`` times, and all continue from the newest checkpoint in ``output``, which
must be storage that all workers share, or at ``train.storage``. A user's error ends the run
instead. SIGTERM: checkpoint, then exit code 75; Ctrl-C: checkpoint, then 130, and a second one ends
at once. More in docs/ray.md.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from launch.ray_cluster import (
    check_workers,
    connected,
    driver_actor,
    first_cause,
    support_placement_group,
    worker_trainer,
)
from primus_scale.cli import GOES_ON, USER_ERRORS, Parser, add_config_arguments, answer, explain
from primus_scale.config import Config
from primus_scale.config_file import load_config, parse_config
from primus_scale.stopping import Stop, stop_on_signals
from primus_scale.storage.files import check_writable
from primus_scale.train.run import open_data
from primus_scale.train.trainer import pretrain

POLL_S = 0.5  # between a worker's requests whether to stop
DRIVER_POLL_S = 0.2  # between the driver's checks for its end
WORKER_TIMEOUT_S = 5.0  # after the last request of a worker; then none runs


def main(argv: Sequence[str] | None = None) -> int:
    """Train with Ray. A user's error: one line on stderr, and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)

    def train() -> int:
        try:
            return train_with_ray(load_config(args.config, args.overrides))
        except TrainingFailedError as error:
            print(f"{parser.prog}: error: {explain(first_cause(error))}", file=sys.stderr)
            return 1

    return answer(parser.prog, train, GOES_ON)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="ray_train", description="Pretrain with workers that Ray starts.")
    add_config_arguments(parser)
    return parser


def train_with_ray(config: Config) -> int:
    """Run ``config`` on ``launch.workers`` workers; returns the exit code of ``pretrain``.

    Ray keeps its own records in ``output/ray``; a run never resumes from them. Raises ValueError or
    OSError for bad input before any worker starts, ValueError with the message of a user's error in
    a worker, and ``TrainingFailedError`` where workers failed more than ``launch.max_failures``
    times.
    """
    check_workers(config)
    open_data(config, config.launch.worker_counts[-1])
    with connected(config), support_placement_group(config) as placement_group:
        channel = driver_actor(DriverChannel)
        check_writable(Path(config.output))  # Ray keeps its own records there
        settings = {"channel": channel, "placement_group": placement_group}
        run_config = RunConfig(
            name=config.name,
            storage_path=str((Path(config.output) / "ray").absolute()),
            failure_config=FailureConfig(max_failures=config.launch.max_failures),
        )
        trainer = worker_trainer(_work, config, settings, run_config)
        try:
            result = _fit(trainer, channel)
        except TrainingFailedError:
            _raise_user_error(channel)
            raise
        _raise_user_error(channel)
        return int(result.return_value)


def _fit(trainer: TorchTrainer, channel: Any) -> Any:
    """What ``trainer.fit()`` gives, while SIGTERM and Ctrl-C go to the workers.

    It runs in another thread: in the main thread Ray Train would kill the workers at Ctrl-C. If
    no worker runs yet, since Ray waits for room, a signal ends this process.
    """
    outcome: Future[Any] = Future()
    no_worker = threading.Event()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:
            outcome.set_exception(error)

    def ask(interrupted: bool) -> None:
        if not ray.get(channel.ask_to_stop.remote(interrupted)):
            no_worker.set()

    with stop_on_signals(Stop(), ask) as stop:
        threading.Thread(target=fit, name="primus-fit", daemon=True).start()
        while not wait([outcome], timeout=DRIVER_POLL_S).done:
            if no_worker.is_set():
                print("stopped while no worker ran; start again to go on", file=sys.stderr)
                raise SystemExit(stop.exit_code)
    return outcome.result()


def _raise_user_error(channel: Any) -> None:
    if message := ray.get(channel.user_error.remote()):
        raise ValueError(message)


class DriverChannel:
    """An actor between driver and workers: signals go to workers, a user's errors to the driver.

    Ray passes no signal to workers, and starts them again whatever they raise.
    """

    def __init__(self) -> None:
        self._stop = ""
        self._user_error = ""
        self._last_request_s = -math.inf  # time of a worker's last request

    def ask_to_stop(self, interrupted: bool) -> bool:
        """Ask all workers to stop, by Ctrl-C or not; whether any worker runs."""
        self._stop = "interrupted" if interrupted else "stopped"
        return time.monotonic() - self._last_request_s < WORKER_TIMEOUT_S

    def stop_asked(self) -> str:
        """How workers were asked to stop, empty if they were not. Called by workers."""
        self._last_request_s = time.monotonic()
        return self._stop

    def report_user_error(self, message: str) -> None:
        """Keep the first message: those of other workers may follow from it."""
        self._user_error = self._user_error or message

    def user_error(self) -> str:
        """The message of an error that a restart cannot repair; empty where there is none."""
        return self._user_error


def _work(settings: dict[str, Any]) -> Any:
    """One worker of the run; returns the exit code of ``pretrain``.

    A user's error goes to the driver and is raised, which ends the other workers. Workers that are
    started again after it return at once.
    """
    channel = settings["channel"]
    if ray.get(channel.user_error.remote()):
        return 1
    log = logging.getLogger("primus_scale")
    log.setLevel(logging.WARNING)  # Ray shows errors only
    log.addHandler(logging.StreamHandler())
    config = parse_config(Config, settings["config"], source="the driver")
    with _stop_when_asked(channel) as stop:
        try:
            return pretrain(config, stop, settings["placement_group"])
        except (ConnectionError, TimeoutError):
            raise  # the network may work again when the workers restart
        except USER_ERRORS as error:
            ray.get(channel.report_user_error.remote(str(error)))
            logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # or Ray logs a traceback
            raise


@contextmanager
def _stop_when_asked(channel: Any) -> Iterator[Stop]:
    """A ``Stop`` that is set as soon as the driver asks the workers to stop."""
    stop, done = Stop(), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            if asked := ray.get(channel.stop_asked.remote()):
                stop.set(interrupted=asked == "interrupted")
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    sys.exit(main())
