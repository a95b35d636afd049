"""A small study of two variants, its plan, and records of its trials."""

from pathlib import Path
from typing import Any

from primus_scale.study.plan import (
    Trial,
    plan_trials,
    write_plan,
    write_variants,
)
from primus_scale.study.study_file import Study, read_study

COST = {"pretraining_s": 10.0, "evaluation_s": 2.0, "windows_per_s": 400.0, "peak_memory_mb": 900.0}


def small_study(folder: Path) -> Study:
    """The study in a folder, with its configuration."""
    (folder / "run.yaml").write_text("name: a\noutput: a\ndata: {train: [x]}\n")
    (folder / "study.yaml").write_text(
        "config: run.yaml\nsplits: [1, 2]\nseeds: [0]\nsettings: {train: {steps: 30}}\n"
        "variants:\n  plain: {}\n  warm: {seeds: [0, 1], settings: {train: {batch: 64}}}\n"
    )
    return read_study(folder / "study.yaml")


def planned(study: Study, out: Path, *overrides: str) -> list[Trial]:
    """The trials of a study, after their plan was written into ``out``."""
    trials = plan_trials(study)
    write_plan(study, trials, write_variants(study, out, overrides), out)
    return trials


def record(trial: Trial, **changes: Any) -> dict[str, Any]:
    """Results of a trial, as its file holds them."""
    interval = {"mean": 0.8, "low": 0.7, "high": 0.9, "people": 3, "draws": 2}
    made = {
        "trial": trial.id,
        **trial._asdict(),
        "revision": "0123456789ab",
        "task": f"hapt-split{trial.split}",
        "few_shot": {"1": {"pretrained": interval, "features": interval}},
        "cost": COST,
        "hardware": {"processor": "a CPU", "cores": 2, "gpus": []},
    }
    return {**made, **changes}
