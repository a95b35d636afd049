"""How far a study is, from what lies in its folder; nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from primus_scale.counted import counted
from primus_scale.distributed.run_lock import is_held
from primus_scale.evaluate.results import format_interval
from primus_scale.monitor.log import METRICS_FILE, read_metrics
from primus_scale.monitor.provenance import CONFIG_FILE
from primus_scale.storage.yaml_text import read_yaml
from primus_scale.study.plan import PLAN_FILE, Trial, planned_trials
from primus_scale.study.records import Record, read_records

STATES = ("finished", "running", "stopped", "failed", "waiting")


class TrialStatus(NamedTuple):
    """State of a trial (of ``STATES``), and what there is to say of it."""

    trial: Trial
    state: str
    detail: str


def read_status(out: Path) -> list[TrialStatus]:
    """The state of every planned trial; raises as ``planned_trials`` and ``read_records``."""
    trials = planned_trials(out / PLAN_FILE)
    records = read_records(out)
    return [_status(trial, out, records.get(trial.id)) for trial in trials]


def format_status(found: Sequence[TrialStatus]) -> str:
    """A line for each trial, and one that counts them."""
    width = max(len(status.trial.id) for status in found) if found else 0
    lines = [f"{one.trial.id:<{width}}  {one.state:<8}  {one.detail}".rstrip() for one in found]
    counts = Counter(status.state for status in found)
    total = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([*lines, f"{counted(len(found), 'trial')}: {total or 'none'}"])


def failed_trials(out: Path, trials: Sequence[Trial]) -> dict[str, str]:
    """The error of each trial whose last start failed, by trial."""
    return {
        trial.id: trial.failure(out).read_text(encoding="utf-8").strip()
        for trial in trials
        if trial.failure(out).is_file()
    }


def describe_accuracy(record: Mapping[str, Any]) -> str:
    """The result of a finished trial: the frozen encoder's accuracy at the fewest labels."""
    for k, row in record["few_shot"].items():
        if "pretrained" in row:
            return f"{format_interval(row['pretrained'])} % at k = {k}"
    speed = record["cost"].get("windows_per_s")
    return f"{speed:,.0f} windows/s" if speed else ""


def _status(trial: Trial, out: Path, record: Record | None) -> TrialStatus:
    run = trial.folder(out)
    if record is not None:
        return TrialStatus(trial, "finished", describe_accuracy(record))
    reached = _reached(run)
    if is_held(run):
        return TrialStatus(trial, "running", reached)
    if trial.failure(out).is_file():
        return TrialStatus(trial, "failed", trial.failure(out).read_text(encoding="utf-8").strip())
    return TrialStatus(trial, "stopped" if reached else "waiting", reached)


def _reached(run: Path) -> str:
    """The last step in a run's log, of how many; empty where it has none."""
    records = read_metrics(run / METRICS_FILE)
    if not records:
        return ""
    steps: Any = "?"
    with suppress(OSError, ValueError, KeyError, TypeError):
        steps = read_yaml((run / CONFIG_FILE).read_bytes())["train"]["steps"]
    return f"step {int(records[-1]['step'])} of {steps}"
