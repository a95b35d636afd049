"""Run a study: plan, data, trials, tables, page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from launch.study.data import packing_order, prepare_data
from primus_scale.config_file import load_config
from primus_scale.counted import counted
from primus_scale.distributed.run_lock import RunLock
from primus_scale.storage.files import check_writable
from primus_scale.study.plan import PLAN_FILE, Trial, plan_trials, write_plan, write_variants
from primus_scale.study.records import read_records
from primus_scale.study.report import report_study
from primus_scale.study.study_file import Study, write_study
from primus_scale.study.trial import check_splits, place_trial, trial_config


def run_study(study: Study, out: Path, jobs: int | None, overrides: Sequence[str]) -> int:
    """Do what is left of a study in the folder ``out``; 0, or 1 where trials failed.

    jobs: trials at a time. overrides: settings of all variants.
    Raises ValueError or OSError where study, configuration or data are wrong, before any trial
    starts.
    """
    load_config(study.config, overrides)  # what is wrong in a configuration shows at once
    check_writable(out)
    lock = RunLock(out, instead="another --out")
    lock.acquire()
    try:
        trials = plan_trials(study)
        _run_trials(study, out, trials, jobs, overrides)
        return report_study(study, out, trials)
    finally:
        lock.release()


def _run_trials(
    study: Study, out: Path, trials: Sequence[Trial], jobs: int | None, overrides: Sequence[str]
) -> None:
    """Write the plan, prepare the data, and do the trials that have no results yet."""
    configs = write_variants(study, out, overrides)
    check_splits(study, configs, out)
    write_plan(study, trials, configs, out)
    write_study(study, out)
    finished = read_records(out)
    left = [trial for trial in trials if trial.id not in finished]
    print(
        f"plan     {out / PLAN_FILE}: {counted(len(trials), 'trial')}, {len(left)} to do",
        flush=True,
    )
    if not left:
        return
    order = packing_order(configs)
    for split in sorted({trial.split for trial in left}):
        prepare_data(study, out, split, order, configs)
    from launch.study.tuning import TrialWork, tune_trials  # ray takes seconds to import

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failed trials are listed below
    places = [place_trial(study, trial, out) for trial in left]
    work = [TrialWork(place, trial_config(place, tuple(overrides))) for place in places]
    tune_trials(out, work, len(trials), jobs)
