"""Pretraining as a Ray Train job: Ray starts the workers, DeepSpeed trains in their group.

    python -m launch.ray_train --config configs/demo.yaml [key=value ...]
    ray job submit --working-dir . -- python -m launch.ray_train --config configs/scale.yaml

With ``RAY_ADDRESS`` set (a submitted job has it) the workers run on that cluster, otherwise on a
local one that lasts as long as the run. A worker that dies is replaced up to
``launch.max_failures`` times, and all continue from the newest checkpoint in ``output``, which
must be storage that all workers share. SIGTERM: checkpoint, then exit code 75.
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
from primus_scale.config import Config, LaunchConfig, load_config, parse_config
from primus_scale.run import open_data
from primus_scale.trainer import pretrain

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

    Raises ValueError or FileNotFoundError for bad input before any worker starts, and
    ``TrainingFailedError`` where the workers failed more than ``launch.max_failures`` times.
    """
    open_data(config, config.launch.workers)
    with _connected(config.launch), _stop_request() as stop_request:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "stop_request": stop_request,
            },
            scaling_config=_scaling(config.launch),
            run_config=RunConfig(
                name=config.name,
                storage_path=str((Path(config.output) / "ray").absolute()),
                failure_config=FailureConfig(max_failures=config.launch.max_failures),
            ),
        )
        result: Any = trainer.fit()
        return int(result.return_value)


class StopRequest:
    """An actor that carries the driver's SIGTERM to the workers, which Ray gives no signal."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Ask all workers to stop."""
        self._set = True

    def is_set(self) -> bool:
        """Whether they are asked to stop."""
        return self._set


def _work(settings: dict[str, Any]) -> Any:
    """One worker's share of the run; returns the exit code of ``pretrain``."""
    logging.getLogger("primus_scale").addHandler(logging.StreamHandler())  # Ray's shows errors only
    config = parse_config(Config, settings["config"], source="the driver")
    stop, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            if ray.get(settings["stop_request"].is_set.remote()):
                stop.set()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return pretrain(config, stop)
    finally:
        done.set()
        watcher.join()


@contextmanager
def _connected(launch: LaunchConfig) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own."""
    os.environ.update(RAY_SETTINGS)
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING)
    else:
        cores = os.cpu_count() or 1
        wanted = launch.workers * launch.cpus_per_worker
        if wanted > cores:
            raise ValueError(
                f"launch.workers={launch.workers} x launch.cpus_per_worker="
                f"{launch.cpus_per_worker:g} need {wanted:g} cores, this machine has {cores}; "
                "lower one of them, or set RAY_ADDRESS to a cluster"
            )
        # A token in the home folder would bind all later clusters of this user to it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            logging_config=ray.LoggingConfig(log_level="ERROR"),
            _node_ip_address="127.0.0.1",
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _stop_request() -> Iterator[Any]:
    """A ``StopRequest`` that SIGTERM to this process sets."""
    actor: Any = ray.remote(num_cpus=0)(StopRequest)  # workers need all the cores
    request = actor.remote()
    previous = signal.signal(signal.SIGTERM, lambda *_: request.set.remote())
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, previous)


def _scaling(launch: LaunchConfig) -> ScalingConfig:
    resources = {"CPU": launch.cpus_per_worker}
    if launch.gpus_per_worker:
        resources["GPU"] = launch.gpus_per_worker
    return ScalingConfig(
        num_workers=launch.workers,
        use_gpu=launch.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


if __name__ == "__main__":
    sys.exit(main())
