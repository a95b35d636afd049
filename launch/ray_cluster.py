"""What a run needs of a Ray cluster: the connection, and room for workers and support actors.

    with connected(config):
        with support_placement_group(config) as group:
            trainer = worker_trainer(work, config, {"placement_group": group}, RunConfig(...))
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
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.ray_group import OwnGroup
from primus_scale.config import Config, LaunchConfig
from primus_scale.objective.terms import uses_neighbours
from shards.tasks.local import on_cluster
from shards.tasks.ray_cluster import ray_cluster

WAITING_NOTICE_S = 30.0  # between lines while the support actors wait for room

# Ray reads these when the driver, the controller and the workers start.
RAY_SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a configuration mean the same everywhere
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # seconds until the end of a worker is noticed
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # not used, and it logs an error
    "RAY_worker_niceness": "0",  # the default of 15 gives all other processes priority
}
# An elastic run counts the machines again if workers have not started within so many seconds: a
# lost machine is still counted for a while.
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
# A cluster of our own has no dashboard. Ray Train's helper would ask that of another cluster on
# this machine, which does not know the run; with two it fails, and prints so.
ALONE_SETTINGS = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:0"}  # nothing can listen there


@contextmanager
def connected(config: Config) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own.

    ValueError where this machine lacks what the run needs, or Ray would delete the output.
    """
    settings = RAY_SETTINGS | (ELASTIC_SETTINGS if len(config.launch.worker_counts) > 1 else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    if not on_cluster():
        os.environ |= ALONE_SETTINGS
    with ray_cluster():
        _check_output(config)
        _check_room(config)
        yield


def check_workers(config: Config) -> None:
    """ValueError where the run cannot work with every number of workers that it may have."""
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


def scaling_config(launch: LaunchConfig) -> ScalingConfig:
    """The workers of a run, as settings of Ray Train."""
    counts = launch.worker_counts
    settings: dict[str, Any] = {  # Ray's annotations are those of an older class
        "num_workers": (counts[0], counts[-1]) if len(counts) > 1 else counts[0],
        "use_gpu": launch.gpus_per_worker > 0,
        "resources_per_worker": worker_resources(launch),
        "label_selector": launch.labels or None,
        "elastic_resize_monitor_interval_s": launch.resize_every_s,
    }
    return ScalingConfig(**settings)


def worker_trainer(
    work: Callable[[dict[str, Any]], Any],
    config: Config,
    settings: Mapping[str, Any],
    run_config: RunConfig,
) -> DataParallelTrainer:
    """The Ray trainer of a run; its ``fit`` starts the workers.

    Each calls ``work`` with ``settings`` and, under ``config``, the configuration as JSON has it.
    """
    return DataParallelTrainer(
        work,
        backend_config=OwnGroup(),
        train_loop_config={"config": config.model_dump(mode="json"), **settings},
        scaling_config=scaling_config(config.launch),
        run_config=run_config,
    )


def first_cause(error: TrainingFailedError) -> Exception:
    """What a worker raised, where that is known: Ray wraps it."""
    causes: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    return next(iter(causes.values()), error)


def support_bundles(config: Config) -> list[dict[str, float]]:
    """Resources of each support actor of the run; empty where there is none, or none needs any.

    Ray has no empty bundle: actors without resources need no reservation.
    """
    support = config.support
    if support.home == "in_process" or not uses_neighbours(config.objective):
        return []
    each = _without_zeros({"CPU": support.cpus_per_actor, "GPU": support.gpus_per_actor})
    return [each] * support.actors if each else []


@contextmanager
def support_placement_group(config: Config) -> Iterator[PlacementGroup | None]:
    """Reserved resources for the support actors, spread over the machines.

    None where the run has no such actors, or they need no resources. Waits until the cluster has
    them.
    """
    bundles = support_bundles(config)
    if not bundles:
        yield None
        return
    group = placement_group(bundles, strategy="SPREAD")
    try:
        while not group.wait(WAITING_NOTICE_S):
            print(
                f"the cluster has no resources for {len(bundles)} support actors yet; waiting",
                file=sys.stderr,
            )
        yield group
    finally:
        remove_placement_group(group)


def driver_actor(kind: type) -> Any:
    """An actor of class ``kind`` on this machine, which stays when others leave the cluster.

    It asks for no core, since workers need all of them.
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
    """Check resources, since Ray would wait for missing ones in silence.

    ValueError where this machine lacks something. A cluster may still grow: print what it lacks.
    """
    alone = not on_cluster()
    if alone and not config.launch.labels.items() <= ray.nodes()[0]["Labels"].items():
        raise ValueError(
            f"launch.labels={config.launch.labels} are not those of this machine; leave them out, "
            "or set RAY_ADDRESS to a cluster"
        )
    available = ray.cluster_resources()
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
        found = available.get(kind, 0.0)
        if wanted <= found:
            continue
        need = f"{' and '.join(parts)} need {wanted:g} {kind}s"
        if alone:
            raise ValueError(
                f"{need}, this machine has {found:g}; lower one of them, or set RAY_ADDRESS to a "
                "cluster"
            )
        print(f"{need}, the cluster has {found:g}: waiting for it to grow", file=sys.stderr)
