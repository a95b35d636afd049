"""Pretraining as a Ray Train job: Ray starts the workers, DeepSpeed trains in their group.

    python -m launch.ray_train --config configs/demo.yaml [key=value ...]
    ray job submit --working-dir . -- python -m launch.ray_train --config configs/scale.yaml

With ``RAY_ADDRESS`` set (a submitted job has it) the workers run on that cluster, otherwise on a
local one that lasts as long as the run. A worker that dies is replaced up to
``launch.max_failures`` times, and all continue from the newest checkpoint in ``output``, which
must be storage that all workers share; what a user must mend ends the run instead. SIGTERM:
checkpoint, then exit code 75.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from primus_scale.cli import USER_ERRORS, Parser, add_config_arguments
from primus_scale.config import Config, LaunchConfig
from primus_scale.config_file import load_config, parse_config
from primus_scale.files import check_writable
from primus_scale.run import open_data
from primus_scale.trainer import pretrain
from shards.parallel import ray_cluster

POLL_S = 0.5  # how often a worker asks whether to stop

# Ray reads these when the driver, the controller and the workers start.
RAY_SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a configuration mean the same everywhere
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # seconds until the end, or a death, is noticed
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # we poll nothing, and it logs an error
    "RAY_worker_niceness": "0",  # of 15 by default: whatever else the machine does would come first
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train with Ray; a user's error is one line on stderr and exit code 1."""
    parser = Parser(prog="ray_train", description="Pretrain with workers that Ray starts.")
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return train_with_ray(load_config(args.config, args.overrides))
    except USER_ERRORS as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", {}).values()
        print(f"{parser.prog}: error: {next(iter(causes), error)}", file=sys.stderr)
    return 1


def train_with_ray(config: Config) -> int:
    """Run ``config`` on ``launch.workers`` workers; returns the exit code of ``pretrain``.

    Raises ValueError or OSError for bad input before any worker starts, ValueError with the message
    of a user's error that a worker met, and ``TrainingFailedError`` where the workers failed more
    than ``launch.max_failures`` times.
    """
    open_data(config, config.launch.workers)
    check_writable(Path(config.output))  # Ray keeps its own records there
    with _connected(config.launch), _mailbox() as mailbox:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"config": config.model_dump(mode="json"), "mailbox": mailbox},
            scaling_config=_scaling(config.launch),
            run_config=RunConfig(
                name=config.name,
                storage_path=str((Path(config.output) / "ray").absolute()),
                failure_config=FailureConfig(max_failures=config.launch.max_failures),
            ),
        )
        try:
            result: Any = trainer.fit()
        except TrainingFailedError:
            _raise_user_error(mailbox)
            raise
        _raise_user_error(mailbox)
        return int(result.return_value)


def _raise_user_error(mailbox: Any) -> None:
    if message := ray.get(mailbox.user_error.remote()):
        raise ValueError(message)


class Mailbox:
    """An actor between driver and workers: there goes SIGTERM, back come a user's errors.

    Ray gives workers no signal, and starts them again whatever they raise.
    """

    def __init__(self) -> None:
        self._stop = False
        self._user_error = ""

    def ask_to_stop(self) -> None:
        """Ask all workers to stop."""
        self._stop = True

    def stop_asked(self) -> bool:
        """Whether they are asked to stop."""
        return self._stop

    def report_user_error(self, message: str) -> None:
        """Keep the first message: other workers' are its consequences, if they differ."""
        self._user_error = self._user_error or message

    def user_error(self) -> str:
        """The message of an error that no restart can mend; empty where there is none."""
        return self._user_error


def _work(settings: dict[str, Any]) -> Any:
    """One worker's share of the run; returns the exit code of ``pretrain``.

    A user's error goes to the mailbox and is raised, which ends the other workers wherever they
    wait. Workers started again after it return at once.
    """
    mailbox = settings["mailbox"]
    if ray.get(mailbox.user_error.remote()):
        return 1
    logging.getLogger("primus_scale").addHandler(logging.StreamHandler())  # Ray's shows errors only
    config = parse_config(Config, settings["config"], source="the driver")
    with _stop_when_asked(mailbox) as stop:
        try:
            return pretrain(config, stop)
        except (ConnectionError, TimeoutError):
            raise  # a network may be back when the workers start again
        except USER_ERRORS as error:
            ray.get(mailbox.report_user_error.remote(str(error)))
            logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # or it logs a traceback
            raise


@contextmanager
def _stop_when_asked(mailbox: Any) -> Iterator[threading.Event]:
    """An event that is set as soon as the driver asks the workers to stop."""
    stop, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            if ray.get(mailbox.stop_asked.remote()):
                stop.set()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()


@contextmanager
def _connected(launch: LaunchConfig) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own."""
    os.environ.update(RAY_SETTINGS)
    with ray_cluster():
        _check_resources(launch)
        yield


def _check_resources(launch: LaunchConfig) -> None:
    """Ray would wait without a word for what is not there: refuse, or say so of a cluster.

    A cluster may still grow, this machine will not. ValueError where it lacks something.
    """
    there = ray.cluster_resources()
    for kind, each in _resources(launch).items():
        wanted, found = launch.workers * each, there.get(kind, 0.0)
        if wanted <= found:
            continue
        field = f"launch.{kind.lower()}s_per_worker"
        need = f"launch.workers={launch.workers} x {field}={each:g} need {wanted:g} {kind}s"
        if "RAY_ADDRESS" not in os.environ:
            raise ValueError(
                f"{need}, this machine has {found:g}; lower one of them, or set RAY_ADDRESS to a "
                "cluster"
            )
        print(f"{need}, the cluster has {found:g}: waiting for it to grow", file=sys.stderr)


@contextmanager
def _mailbox() -> Iterator[Any]:
    """A ``Mailbox`` into which SIGTERM to this process goes."""
    actor: Any = ray.remote(num_cpus=0)(Mailbox)  # workers need all the cores
    mailbox = actor.remote()
    previous = signal.signal(signal.SIGTERM, lambda *_: mailbox.ask_to_stop.remote())
    try:
        yield mailbox
    finally:
        signal.signal(signal.SIGTERM, previous)


def _resources(launch: LaunchConfig) -> dict[str, float]:
    """What one worker asks of Ray."""
    gpus = {"GPU": launch.gpus_per_worker} if launch.gpus_per_worker else {}
    return {"CPU": launch.cpus_per_worker, **gpus}


def _scaling(launch: LaunchConfig) -> ScalingConfig:
    return ScalingConfig(
        num_workers=launch.workers,
        use_gpu=launch.gpus_per_worker > 0,
        resources_per_worker=_resources(launch),
    )


if __name__ == "__main__":
    sys.exit(main())
