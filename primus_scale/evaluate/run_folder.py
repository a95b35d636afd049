"""What an evaluation adds to its training run: a summary, and figures in TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from primus_scale.config import Config
from primus_scale.encoders.export import ENCODER_FOLDER
from primus_scale.encoders.sources import is_folder
from primus_scale.evaluate.arm_table import PRETRAINED_ARMS
from primus_scale.evaluate.command import evaluate
from primus_scale.evaluate.lead import headline_k
from primus_scale.evaluate.results import arms_of, best_baselines
from primus_scale.monitor.drawing import as_pixels
from primus_scale.monitor.log import LOG_FOLDER
from primus_scale.monitor.pictures import confusion_chart
from primus_scale.storage.files import explain_failed_write, write_atomically
from primus_scale.storage.foreign import parse_json
from primus_scale.storage.urls import parse_local

TRAINING_SUMMARY = "train.json"  # the trainer's
SUMMARY_FILE = "summary.json"
REPORT_FOLDER = "few_shot"  # beside the encoder's folder, unless another is given


def evaluate_run(
    run_dir: str | Path, data_url: str | None, config: Config, out_dir: str | Path, **choices: Any
) -> dict[str, Any]:
    """``evaluate`` the encoder of a finished run, and add the results to its folder.

    config: the run's, with the few-shot settings to use. choices: keywords of ``evaluate``. Prints
    where the summary is. Raises also FileNotFoundError where the training has not finished.
    """
    results = evaluate(
        Path(run_dir) / ENCODER_FOLDER,
        data_url,
        config.few_shot,
        out_dir,
        augment=config.augment,
        pretraining_seed=config.seed,
        pretraining_s=pretraining_seconds_of(run_dir, config.train.batch),
        **choices,
    )
    log_few_shot(run_dir, results, config.model_dump(mode="json"))
    print(f"summary  {write_summary(run_dir, results)}")
    return results


def report_folder(source: str | Path) -> Path:
    """The usual folder of an evaluation of ``load_encoder(source)``: beside the encoder.

    In the working folder where it has no folder of the user's.
    """
    beside = parse_local(source).absolute().parent if is_folder(source) else Path()
    return beside / REPORT_FOLDER


def write_summary(run_dir: str | Path, results: Mapping[str, Any]) -> Path:
    """Join a run's ``train.json`` and its few-shot accuracies into ``summary.json``.

    Keys: ``losses``, ``windows_per_s``, ``retrieval``, ``few_shot`` {k: {arm: {mean, low, high}}}.
    Raises FileNotFoundError where the training has not finished.
    """
    trained = _read_training_summary(run_dir)
    few_shot = {
        k: {arm: {key: row[arm][key] for key in ("mean", "low", "high")} for arm in row}
        for k, row in results["few_shot"].items()
    }
    path = Path(run_dir) / SUMMARY_FILE
    write_atomically(path, json.dumps({**trained, "few_shot": few_shot}, indent=1) + "\n")
    return path


def pretraining_seconds_of(run_dir: str | Path, batch: int) -> float | None:
    """Seconds of all steps of a run at its usual speed; an interruption is no cost of the encoder.

    batch: windows of a step. None where the training has not finished, or has no speed.
    """
    if not (Path(run_dir) / TRAINING_SUMMARY).is_file():
        return None
    trained = _read_training_summary(run_dir)
    speed = trained.get("windows_per_s")
    return trained["steps"] * batch / speed if speed else None


def log_few_shot(
    run_dir: str | Path, results: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Add the results to a run's TensorBoard, at its last step.

    The report's confusion matrices, tags ``confusion/ARM``; and as hparams the run's settings with
    ``few_shot/accuracy/ARM/k=K`` of pretrained arms and ``few_shot/gain/k=K`` of the frozen encoder
    over the best fixed baseline, in percent, so that runs compare. settings: the run's
    configuration, nested. Raises FileNotFoundError where the training has not finished.
    """
    last_step = _read_training_summary(run_dir)["steps"]
    k, folder = headline_k(results), Path(run_dir) / LOG_FOLDER
    with explain_failed_write(folder), SummaryWriter(str(folder)) as writer:
        arms = arms_of(results)
        for arm, counts in results["confusion"][k].items():
            title = f"{arms[arm].title}, k = {k}"
            picture = as_pixels(confusion_chart(np.array(counts), results["classes"], title))
            writer.add_image(f"confusion/{arm}", picture, last_step, dataformats="HWC")
        # In the folder of the run itself: a folder of its own would be another run to TensorBoard.
        writer.add_hparams(
            dict(_flat_settings(settings)),
            _few_shot_figures(results),
            run_name=".",
            global_step=last_step,
        )


def _few_shot_figures(results: Mapping[str, Any]) -> dict[str, float]:
    figures = {
        f"few_shot/accuracy/{arm}/k={k}": 100 * row[arm]["mean"]
        for k, row in results["few_shot"].items()
        for arm in PRETRAINED_ARMS
        if arm in row
    }
    for k, baseline in best_baselines(results).items():
        gain = results["paired"][k]["pretrained"][baseline]
        figures[f"few_shot/gain/k={k}"] = 100 * gain["mean"]
    return figures


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by names like ``optimizer/lr``; what is no number, truth or text is a text."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat_settings(value, f"{prefix}{name}/")
        else:
            plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{name}", value if plain else json.dumps(value)


def _read_training_summary(run_dir: str | Path) -> dict[str, Any]:
    path = Path(run_dir) / TRAINING_SUMMARY
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the training run has not finished")
    summary = parse_json(path.read_bytes(), str(path))
    if not isinstance(summary, dict) or not isinstance(summary.get("steps"), int):
        raise ValueError(f"{path} is no summary of a training run; run the training command again")
    return summary
