r"""Pretraining as a Ray Train job: Ray starts the workers, DeepSpeed trains in their group.

    python -m launch.ray_train --config configs/demo.yaml [key=value ...]
    ray job submit --working-dir . -- python -m launch.ray_train --config configs/scale.yaml \
        output=/shared/runs/scale

With ``RAY_ADDRESS`` set (a submitted job has it) the workers run on that cluster, otherwise on a
local one that lasts as long as the run. A worker that dies is replaced up to
``launch.max_failures`` times, and all continue from the newest checkpoint. It is at
``train.storage``, or in ``output``, which must then be storage that all workers share. A user's
error ends the run instead. SIGTERM: checkpoint, then exit code 75; Ctrl-C: checkpoint, then 130,
and a second one ends at once. More in docs/ray.md.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, TrainingFailedError

from launch.ray_channel import DriverChannel
from launch.ray_cluster import (
    check_workers,
    connected,
    driver_actor,
    first_cause,
    support_placement_group,
    worker_trainer,
)
from launch.ray_driver import run_stoppable
from launch.ray_worker import pretrain_in_worker
from primus_scale.cli import GOES_ON, answer, explain
from primus_scale.command_parser import Parser, add_config_arguments
from primus_scale.config import Config
from primus_scale.config_file import load_config
from primus_scale.storage.files import check_writable
from primus_scale.train.run import open_data


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

    Ray keeps its own records in ``output/ray``; a run never resumes from them.

    Raises ValueError or OSError for bad input before any worker starts. Later it raises ValueError
    with the message of a user's error in a worker, and ``TrainingFailedError`` where workers failed
    more than ``launch.max_failures`` times.
    """
    check_workers(config)
    open_data(config, config.launch.worker_counts[-1])
    with connected(config), support_placement_group(config) as placement_group:
        channel = driver_actor(DriverChannel)
        check_writable(Path(config.output))  # Ray keeps its own records there
        settings = {"channel": channel, "run": config.name, "placement_group": placement_group}
        run_config = RunConfig(
            name=config.name,
            storage_path=str((Path(config.output) / "ray").absolute()),
            failure_config=FailureConfig(max_failures=config.launch.max_failures),
        )
        trainer = worker_trainer(pretrain_in_worker, config, settings, run_config)
        try:
            result = run_stoppable(trainer.fit, channel, _reason_to_end)
        except TrainingFailedError:
            _raise_user_error(channel, config.name)
            raise
        _raise_user_error(channel, config.name)
        return int(result.return_value)


def _reason_to_end(ran: bool) -> str:
    """For ``run_stoppable``: if Ray waited for room at the signal, no worker will answer it."""
    return "" if ran else "stopped while no worker ran"


def _raise_user_error(channel: Any, run: str) -> None:
    if message := ray.get(channel.user_error.remote(run)):
        raise ValueError(message)


if __name__ == "__main__":
    sys.exit(main())
