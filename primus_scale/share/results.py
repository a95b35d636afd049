"""From the results of ``primus-scale evaluate`` to the rows of an encoder's card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from primus_scale.counted import counted
from primus_scale.encoders.about import CardResult
from primus_scale.evaluate.arm_table import ARMS, PRETRAINED_ARMS
from primus_scale.evaluate.command import RESULTS_FILE, read_results
from primus_scale.evaluate.results import best_baselines, who_is_tested
from primus_scale.evaluate.run_folder import REPORT_FOLDER

FROZEN = "pretrained"  # the arm of the encoder as it is


def card_results(results: Mapping[str, Any], task: str) -> tuple[CardResult, ...]:
    """Rows of a card: each pretrained arm at each number of labels, frozen first.

    results: content of ``few_shot.json``. task: what was evaluated, for people. The frozen encoder
    has the best baseline without a pretrained encoder beside it.
    """
    best, rows = best_baselines(results), []
    for arm in PRETRAINED_ARMS:
        for k, accuracies in results["few_shot"].items():
            if arm not in accuracies:
                continue
            found = accuracies[arm]
            row = {
                "value": round(found["mean"], 4),
                **{name: round(found[name], 4) for name in ("low", "high")},
                **{name: found[name] for name in ("people", "draws")},
            }
            if arm == FROZEN and k in best:
                row["baseline"] = ARMS[best[k]].title
                row["baseline_value"] = round(accuracies[best[k]]["mean"], 4)
            rows.append(CardResult(task=task, protocol=ARMS[arm].title, labels=str(k), **row))
    return tuple(rows)


def results_beside(encoder_folder: Path, weights_sha256: str) -> tuple[CardResult, ...]:
    """Rows from the evaluation that lies beside an exported encoder; none where none is of it.

    ValueError naming the file where it is damaged or of another schema.
    """
    path = encoder_folder.absolute().parent / REPORT_FOLDER / RESULTS_FILE
    if not path.is_file():
        return ()
    results = read_results(path)
    if any(run.get("weights_sha256") != weights_sha256 for run in results["runs"]):
        return ()
    return card_results(results, _task_of(results))


def _task_of(results: Mapping[str, Any]) -> str:
    datasets = ", ".join(results.get("data", {}).get("datasets", {})) or "data without a name"
    people = max(row["people"] for arms in results["few_shot"].values() for row in arms.values())
    classes = ", ".join(results["classes"])
    return f"{datasets}: {classes}; {counted(people, 'person', 'people')}{who_is_tested(results)}"
