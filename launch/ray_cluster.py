"""What a run asks of a Ray cluster: the connection, room for its workers and support actors.

    with connected(config):
        with reserved_for_support(config) as placement:
            trainer = workers(work, config, {"placement": placement}, RunConfig(...))
            trainer.fit()

Ray Train reserves the workers' places itself; those of support actors that ask for cores or devices
are a placement group of their own, which ends with the run.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.ray_group import OwnGroup
from primus_scale.config import Config, LaunchConfig
from primus_scale.objective.terms import uses_neighbours
from shards.tasks.workers import on_cluster, ray_cluster

PATIENCE_S = 30.0  # between lines that there is no room for the support actors

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
# An elastic run counts the machines anew when workers have not started within so many seconds: for
# a while after one is lost it is still counted.
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}


@contextmanager
def connected(config: Config) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own.

    ValueError where this machine lacks what the run needs, or the output would go with the job.
    """
    settings = RAY_SETTINGS | (ELASTIC_SETTINGS if len(config.launch.worker_counts) > 1 else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    with ray_cluster():
        _check_output(config)
        _check_room(config)
        yield


def check_workers(config: Config) -> None:
    """ValueError where a number of workers that the run may come to have would break it."""
    launch, train = config.launch, config.train
    counts = launch.worker_counts
    if len(counts) == 1:
        return
    every = math.lcm(*counts) * train.accumulation
    if train.batch % every:
        raise ValueError(
            f"train.batch={train.batch} must divide by each number of workers from {counts[0]} to "
            f"{counts[-1]} (launch.workers) x train.accumulation={train.accumulation}; use a "
            f"multiple of {every}, or fewer numbers"
        )
    if support_bundles(config):
        raise ValueError(
            "Ray counts what machines have, not what support actors hold of it, so launch.workers "
            f"cannot be {launch.workers} next to support.cpus_per_actor="
            f"{config.support.cpus_per_actor:g} and support.gpus_per_actor="
            f"{config.support.gpus_per_actor:g}; use one number of workers, or 0 for both"
        )


def worker_resources(launch: LaunchConfig) -> dict[str, float]:
    """What one worker asks of Ray."""
    return _without_zeros({"CPU": launch.cpus_per_worker, "GPU": launch.gpus_per_worker})


def scaling(launch: LaunchConfig) -> ScalingConfig:
    """The workers of a run, as Ray Train is told."""
    counts = launch.worker_counts
    settings: dict[str, Any] = {  # Ray's annotations are of an older class than it has here
        "num_workers": (counts[0], counts[-1]) if len(counts) > 1 else counts[0],
        "use_gpu": launch.gpus_per_worker > 0,
        "resources_per_worker": worker_resources(launch),
        "label_selector": launch.labels or None,
        "elastic_resize_monitor_interval_s": launch.resize_every_s,
    }
    return ScalingConfig(**settings)


def workers(
    work: Callable[[dict[str, Any]], Any],
    config: Config,
    settings: Mapping[str, Any],
    run_config: RunConfig,
) -> TorchTrainer:
    """What starts the workers of a run, when it is told to ``fit``.

    Each calls ``work`` with ``settings`` and, under ``config``, the configuration as JSON has it.
    """
    return TorchTrainer(
        work,
        torch_config=OwnGroup(),
        train_loop_config={"config": config.model_dump(mode="json"), **settings},
        scaling_config=scaling(config.launch),
        run_config=run_config,
    )


def first_cause(error: TrainingFailedError) -> Exception:
    """What a worker raised, where that is known: Ray wraps it."""
    causes: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    return next(iter(causes.values()), error)


def support_bundles(config: Config) -> list[dict[str, float]]:
    """What each support actor of the run asks of Ray; empty where there are none, or for nothing.

    Ray has no bundle of nothing: such actors need no place reserved.
    """
    support = config.support
    if support.home == "in_process" or not uses_neighbours(config.objective):
        return []
    each = _without_zeros({"CPU": support.cpus_per_actor, "GPU": support.gpus_per_actor})
    return [each] * support.actors if each else []


@contextmanager
def reserved_for_support(config: Config) -> Iterator[PlacementGroup | None]:
    """Places for the support actors, on as many machines as there are; None where none are needed.

    Waits until the cluster has room.
    """
    bundles = support_bundles(config)
    if not bundles:
        yield None
        return
    placement = placement_group(bundles, strategy="SPREAD")
    try:
        while not placement.wait(PATIENCE_S):
            print(f"no room for {len(bundles)} support actors yet: waiting", file=sys.stderr)
        yield placement
    finally:
        remove_placement_group(placement)


def beside_driver(kind: type) -> Any:
    """An actor of class ``kind`` on this machine: others may come and go.

    It asks for no core, since workers need them all.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=here).remote()


def _without_zeros(resources: Mapping[str, float]) -> dict[str, float]:
    return {kind: each for kind, each in resources.items() if each}


def _check_output(config: Config) -> None:
    """Refuse to write where Ray has unpacked a submitted job's files: it deletes them later."""
    submitted = ray.get_runtime_context().runtime_env.get("working_dir")
    if submitted and not Path(config.output).is_absolute() and config.train.storage is None:
        raise ValueError(
            f"output={config.output} lies in the job's own copy of the working directory, which "
            "Ray deletes; give an absolute path, on storage that all machines share, or set "
            "train.storage"
        )


def _check_room(config: Config) -> None:
    """Ray would wait without a word for what is not there: refuse, or say so of a cluster.

    A cluster may still grow, this machine will not. ValueError where it lacks something.
    """
    alone = not on_cluster()
    if alone and not config.launch.labels.items() <= ray.nodes()[0]["Labels"].items():
        raise ValueError(
            f"launch.labels={config.launch.labels} are not those of this machine; leave them out, "
            "or set RAY_ADDRESS to a cluster"
        )
    there = ray.cluster_resources()
    workers, each_worker = config.launch.worker_counts[0], worker_resources(config.launch)
    bundles = support_bundles(config)
    each_actor = bundles[0] if bundles else {}
    for kind in each_worker | each_actor:
        parts = []
        if kind in each_worker:
            field = f"launch.{kind.lower()}s_per_worker"
            parts.append(f"launch.workers={workers} x {field}={each_worker[kind]:g}")
        if kind in each_actor:
            field = f"support.{kind.lower()}s_per_actor"
            parts.append(f"support.actors={len(bundles)} x {field}={each_actor[kind]:g}")
        wanted = workers * each_worker.get(kind, 0) + len(bundles) * each_actor.get(kind, 0)
        found = there.get(kind, 0.0)
        if wanted <= found:
            continue
        need = f"{' and '.join(parts)} need {wanted:g} {kind}s"
        if alone:
            raise ValueError(
                f"{need}, this machine has {found:g}; lower one of them, or set RAY_ADDRESS to a "
                "cluster"
            )
        print(f"{need}, the cluster has {found:g}: waiting for it to grow", file=sys.stderr)
