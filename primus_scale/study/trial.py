"""One trial of a study: pretraining, few-shot evaluation, and the file of its results."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from primus_scale.config import Config
from primus_scale.config.few_shot import DATA
from primus_scale.config_file import load_config
from primus_scale.data.index import INDEX_NAME
from primus_scale.encoders.card import read_card
from primus_scale.evaluate import evaluate_run, pretraining_seconds_of
from primus_scale.evaluate.run_folder import REPORT_FOLDER
from primus_scale.monitor.provenance import describe_environment, describe_hardware
from primus_scale.storage.folder import Folder
from primus_scale.study.plan import (
    Trial,
    data_of,
    own_settings,
    planned_config,
    training_of,
    variant_file,
)
from primus_scale.study.records import NO_TASK, revision_of, write_record
from primus_scale.study.study_file import Study
from primus_scale.train.trainer import ENCODER_FOLDER, SUMMARY_FILE

FINISHED_FILE = "few_shot.finished.jsonl"  # work that evaluations of one split share
_MAXRSS_BYTES = 1024 if sys.platform != "darwin" else 1  # the unit of ru_maxrss


class TrialPlace(NamedTuple):
    """Where a trial is done: the folder of its study, and the folder of its data.

    train: the shard folder that it is pretrained on. few_shot: the folder with label/ and test/;
    None where the study evaluates nothing.
    """

    trial: Trial
    out: Path
    data: str
    train: str
    few_shot: str | None


def place_trial(study: Study, trial: Trial, out: Path) -> TrialPlace:
    """Where a trial of ``study`` is done."""
    data = data_of(study, out, trial.split)
    train = training_of(study, out, trial.variant, trial.split)
    return TrialPlace(trial, out, data, train, f"{data}/few_shot" if study.evaluate else None)


def settings_of_place(place: TrialPlace) -> list[str]:
    """The ``key=value`` settings that make the trial's run of its variant."""
    validation = f"{place.data}/packed/validation"
    held_out = validation if has_index(validation) else None
    return own_settings(place.trial, place.out, place.train, held_out)


def trial_config(place: TrialPlace, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration of a trial's run; ValueError as ``load_config``."""
    file = variant_file(place.out, place.trial.variant)
    return load_config(file, [*settings_of_place(place), *overrides])


def has_index(url: str) -> bool:
    """Whether a shard folder is there, and finished."""
    try:
        return Folder(url).size(INDEX_NAME) >= 0
    except FileNotFoundError:
        return False


def finish_trial(place: TrialPlace, config: Config) -> dict[str, Any]:
    """Evaluate the encoder of a run that has ended, and write the trial's results; returns them.

    Raises as ``evaluate``. What an interrupted evaluation has finished is not computed again.
    """
    run, trial = Path(config.output), place.trial
    trained_mb, start = peak_memory_mb(), time.monotonic()
    results: dict[str, Any] = {}
    if place.few_shot is not None:
        data, config = task_of(place, config)
        results = evaluate_run(
            run,
            data,
            config,
            run / REPORT_FOLDER,
            finished_file=place.out / f"split{trial.split}" / FINISHED_FILE,
            jobs=1,  # trials take the cores, and a fork would break the threads of a Ray worker
        )
    training = json.loads((run / SUMMARY_FILE).read_text(encoding="utf-8"))
    cost = {
        "pretraining_s": pretraining_seconds_of(run, config.train.batch),
        "evaluation_s": time.monotonic() - start if results else None,
        "windows_per_s": training["windows_per_s"],
        "peak_memory_mb": trained_mb,
        "ranks": config.launch.worker_counts[-1],
    }
    record = _record(place, config, results, training, cost)
    write_record(place.out, record)
    return record


def task_of(place: TrialPlace, config: Config) -> tuple[str | None, Config]:
    """Where a trial's task is, and its configuration with what a study leaves open.

    The split of the trial is the seed of who is tested. In few_shot.task.data ``{data}`` stands for
    the data of the trial, ``{split}`` for its split; without it the task is ``few_shot`` there.
    """
    task, split = config.few_shot.task, place.trial.split
    names = {DATA: place.data, "{split}": str(split)}
    urls = task.data
    for name, value in names.items():
        urls = tuple(url.replace(name, value) for url in urls)
    seed = split if task.seed is None else task.seed
    task = task.model_copy(update={"data": urls, "seed": seed})
    few_shot = config.few_shot.model_copy(update={"task": task})
    return (None if urls else place.few_shot), config.model_copy(update={"few_shot": few_shot})


def check_splits(study: Study, configs: Mapping[str, Config], out: Path) -> None:
    """ValueError naming two splits in which a variant would be tested on the same people.

    Their answers cannot be pooled, or would count as those of several splits.
    """
    for name, config in configs.items() if study.evaluate else ():
        seen: dict[tuple[Any, ...], int] = {}
        for split in study.splits:
            place = place_trial(study, Trial(name, split, 0), out)
            data, of_split = task_of(place, config)
            task = of_split.few_shot.task
            number: Any = None if task.test is None else task.seed
            if isinstance(task.test, tuple) and config.few_shot.task.seed is None:
                number = place.train  # those with these names, of several pretrainings
            tested = (data, task.data, number)
            if tested in seen:
                raise ValueError(
                    f"study {study.name}: splits {seen[tested]} and {split} of variant {name} are "
                    "one task, the same people of the same data; write {split} in data (or in "
                    "few_shot.task.data), let a share be drawn (few_shot.task.test without seed), "
                    "or do one split"
                )
            seen[tested] = split


def peak_memory_mb() -> float:
    """The most memory that this process has used so far; on a GPU that of torch there."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES / 1e6


def _record(
    place: TrialPlace,
    config: Config,
    results: Mapping[str, Any],
    training: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    run, trial = Path(config.output), place.trial
    card = read_card(run / ENCODER_FOLDER)
    kept = ("few_shot", "macro_f1", "paired", "protocol", "classes", "data")
    return {
        "trial": trial.id,
        **trial._asdict(),
        "config": planned_config(place.out, trial),
        "revision": revision_of(card),
        "task": _task(results, trial.split),
        "encoder": {"name": card.encoder.name, "parameters": card.parameters},
        "run": run.relative_to(place.out).as_posix(),
        "seeds": {"pretraining": config.seed, "labels": config.few_shot.seed},
        "training": {"windows": card.data.get("windows"), **training},
        "few_shot": {},
        **{name: results[name] for name in kept if name in results},
        "cost": dict(cost),
        **describe_environment(),
        "hardware": describe_hardware(),
    }


def _task(results: Mapping[str, Any], split: int) -> str:
    """The task's name: the data sets that are classified, and the split of their people."""
    if not results:
        return NO_TASK
    return "-".join([*results["data"]["datasets"], f"split{split}"])
