"""The trials of a study by Ray Tune: each a function that starts a Ray Train run and evaluates.

Tune decides which trials run at a time and keeps records of them in ``tune/``. These records may
lag behind (they do when the driver is killed) or be lost. So only a file of results says that a
trial is finished, and only its checkpoints say how far a run is.

A trial's function runs in a thread of a Tune actor, which needs no core: its Ray Train workers
have them. Rank 0 evaluates when the training has ended, with the same cores and devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Ray Tune reads these when it is imported: the study prints its own lines and writes its own files.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
import ray.train
from ray import tune
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.tune.integration.ray_train import TuneReportCallback

from launch.ray_channel import DriverChannel
from launch.ray_cluster import (
    check_workers,
    connected,
    driver_actor,
    first_cause,
    support_placement_group,
    worker_resources,
    worker_trainer,
)
from launch.ray_driver import run_stoppable
from launch.ray_worker import pretrain_in_worker, user_errors_reported, worker_config
from launch.study.progress import Progress
from primus_scale.cli import explain
from primus_scale.config import Config
from primus_scale.storage.files import write_atomically
from primus_scale.study.plan import Trial
from primus_scale.study.records import read_records
from primus_scale.study.status import describe_accuracy
from primus_scale.study.trial import TrialPlace, finish_trial
from primus_scale.train.run import open_data

TUNE_FOLDER, TUNE_PLAN = "tune", "tune.json"
ONE_BYTE = {"memory": 1.0}  # for a trial's function: Tune refuses trials that ask for no resource


class TrialWork(NamedTuple):
    """A trial that is to be done: where, and with which configuration."""

    place: TrialPlace
    config: Config


class TrialStoppedError(Exception):
    """A trial was stopped after a checkpoint, or before it began."""


class TrialFailedError(Exception):
    """A trial ended with an error, which is in its file."""


def tune_trials(out: Path, work: Sequence[TrialWork], total: int, jobs: int | None) -> None:
    """Do the trials of ``work``, ``jobs`` at a time (None: as many as there are cores for).

    total: of trials in the study. A trial that fails leaves its error in ``Trial.failure``, and
    the others go on. SystemExit with 75 or 130 where a signal stopped the study.
    """
    largest = max((each.config for each in work), key=_cores)
    with connected(largest):
        channel = driver_actor(DriverChannel)
        jobs = jobs or _jobs_with_room([each.config for each in work])
        tuner = _make_tuner(out, work, total, jobs, channel)

        def reason_to_end(_: bool) -> str:
            trains = ray.get(channel.is_training.remote())
            return "" if trains else "stopped, what is done is kept"

        results = run_stoppable(tuner.fit, channel, reason_to_end)
        for result in results:
            if result.error is not None:
                _keep_error(out, result.config["trial"], work, result.error)


def _make_tuner(
    out: Path, work: Sequence[TrialWork], total: int, jobs: int, channel: Any
) -> tune.Tuner:
    """A tuner that goes on from Tune's records, or a new one where they are of another plan."""
    trainable = tune.with_resources(_trial_function(out, work, channel), ONE_BYTE)
    names = [each.place.trial.id for each in work]
    folder = out.absolute() / TUNE_FOLDER
    if _records_match(out, names, jobs) and tune.Tuner.can_restore(str(folder)):
        # What Tune keeps is pickled: nobody else may have written it.
        if _is_only_ours(folder):
            return tune.Tuner.restore(str(folder), trainable, resume_errored=True)
        print(f"{folder} can be written by others, so Ray's records in it are not read")
    shutil.rmtree(folder, ignore_errors=True)
    write_atomically(out / TUNE_PLAN, json.dumps({"trials": names, "jobs": jobs}) + "\n")
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(names)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=jobs,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(out.absolute()),
            failure_config=tune.FailureConfig(max_failures=0),  # Ray Train restarts workers
            callbacks=[Progress(str(out), total)],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _trial_function(
    out: Path, work: Sequence[TrialWork], channel: Any
) -> Callable[[dict[str, Any]], Any]:
    """The function that Tune calls for each trial, with ``{"trial": ID}``; returns its result."""
    by_id: Mapping[str, TrialWork] = {each.place.trial.id: each for each in work}

    def study_trial(settings: dict[str, Any]) -> dict[str, Any]:
        name = settings["trial"]
        record = read_records(out).get(name)
        if record is None:
            _run_trial(by_id[name], channel)
            record = read_records(out)[name]
        return {"trial": name, "result": describe_accuracy(record)}

    return study_trial


def _run_trial(work: TrialWork, channel: Any) -> None:
    """Train and evaluate in Ray Train workers, which continue from the newest checkpoint."""
    trial, out = work.place.trial, work.place.out
    if ray.get(channel.stop_asked.remote()):
        raise TrialStoppedError(trial.id)
    trial.failure(out).unlink(missing_ok=True)
    ray.get(channel.note_training.remote(trial.id, True))
    try:
        code, why = _run_workers(work, channel), ray.get(channel.user_error.remote(trial.id))
    except Exception as error:
        reported = ray.get(channel.user_error.remote(trial.id))
        cause = first_cause(error) if isinstance(error, TrainingFailedError) else error
        code, why = 1, reported or str(cause)
    finally:
        ray.get(channel.note_training.remote(trial.id, False))
    if why:
        write_atomically(trial.failure(out), explain(ValueError(why)) + "\n")
        raise TrialFailedError(f"{trial.id}: {why}") from None
    if code:
        raise TrialStoppedError(trial.id)


def _run_workers(work: TrialWork, channel: Any) -> int:
    """Start the workers of a trial and wait for them; the exit code of ``pretrain``."""
    (place, config), trial = work, work.place.trial
    check_workers(config)
    open_data(config, config.launch.worker_counts[-1])  # what is wrong with them shows at once
    with support_placement_group(config) as group:
        settings = {"channel": channel, "run": trial.id, "placement_group": group, "place": place}
        reporting: Any = TuneReportCallback()  # Ray's annotations are those of older classes
        run_config = RunConfig(
            name=trial.id,
            storage_path=str((Path(config.output) / "ray").absolute()),
            failure_config=FailureConfig(max_failures=config.launch.max_failures),
            callbacks=[reporting],
        )
        result: Any = worker_trainer(_train_and_evaluate, config, settings, run_config).fit()
    return int(result.return_value)


def _train_and_evaluate(settings: dict[str, Any]) -> int:
    """One worker of a trial. What it prints goes to the trial's log; rank 0 evaluates."""
    place: TrialPlace = settings["place"]
    channel, run, config = settings["channel"], settings["run"], worker_config(settings)
    log_path = place.trial.log(place.out)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    # Not closed: what logs at the end of this process would fail.
    log = log_path.open("a", encoding="utf-8", buffering=1)

    def report(step: int, figures: dict[str, float]) -> None:
        ray.train.report({"step": step, "steps": config.train.steps, **figures})

    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        code = pretrain_in_worker(settings, report)
        ray.get(channel.note_training.remote(run, False))  # a stop need not wait any more
        if code == 0 and ray.train.get_context().get_world_rank() == 0:
            with user_errors_reported(channel, run):
                finish_trial(place, config)
    return code


def _records_match(out: Path, names: Sequence[str], jobs: int) -> bool:
    """Whether Tune's records are of a plan with ``jobs`` that contains all trials ``names``."""
    try:
        plan = json.loads((out / TUNE_PLAN).read_text(encoding="utf-8"))
        return set(names) <= set(plan["trials"]) and plan["jobs"] == jobs
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_only_ours(folder: Path) -> bool:
    """Whether no other user can write the folder, or what Tune unpickles in it."""
    files = [folder, folder / "tuner.pkl", *folder.glob("experiment_state*"), *folder.glob("*.pkl")]
    found = [path.stat() for path in files]
    return all(
        each.st_uid == os.geteuid() and not each.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for each in found
    )


def _keep_error(out: Path, name: str, work: Sequence[TrialWork], error: BaseException) -> None:
    """Keep the error of a trial whose process ended before it could do so itself."""
    trials: dict[str, Trial] = {each.place.trial.id: each.place.trial for each in work}
    path = trials[name].failure(out) if name in trials else None
    if path is not None and not path.is_file():
        write_atomically(path, f"its process ended ({explain(error)})\n")


def _cores(config: Config) -> float:
    return config.launch.worker_counts[-1] * config.launch.cpus_per_worker


def _jobs_with_room(configs: Sequence[Config]) -> int:
    """How many trials the cluster has cores and devices for, at least 1."""
    available = ray.cluster_resources()
    room = [
        available.get(kind, 0.0) // (config.launch.worker_counts[0] * each)
        for config in configs
        for kind, each in worker_resources(config.launch).items()
    ]
    return max(1, int(min(room)))
