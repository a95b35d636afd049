"""From an exported encoder and a folder of labelled shards to results and a report on disk."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from primus_scale.augment import build_augment
from primus_scale.config import AugmentOp, FewShotConfig
from primus_scale.encoders.adapt import adapt_encoder
from primus_scale.encoders.base import ImuEncoder
from primus_scale.encoders.card import EncoderCard
from primus_scale.encoders.pretrained import (
    PretrainedEncoder,
    build_encoder_of,
    load_encoder,
)
from primus_scale.evaluate.checked_results import AGAIN, check_results
from primus_scale.evaluate.feature_map import feature_map
from primus_scale.evaluate.finished_work import FinishedWork
from primus_scale.evaluate.own_encoders import check_sources
from primus_scale.evaluate.pooling import pool
from primus_scale.evaluate.protocol import describe_protocol, limited_threads, run_few_shot
from primus_scale.evaluate.report import PAGE_FILE, render_files, write_files
from primus_scale.evaluate.results import SCHEMA, format_table
from primus_scale.evaluate.task import FewShotTask, load_task
from primus_scale.evaluate.without_labels import format_without_labels, run_without_labels
from primus_scale.monitor.page import explain_failed_page
from primus_scale.storage.files import check_writable, write_atomically
from primus_scale.storage.foreign import parse_json
from primus_scale.storage.urls import parse_place

RESULTS_FILE = "few_shot.json"
_FIELDS = (  # that results must have; those that ``evaluate`` adds may be missing
    *("classes", "protocol", "few_shot", "macro_f1", "paired", "confusion", "runs", "records"),
)
SMALLEST_STD = 1e-12  # of a channel, in its unit
FINISHED_FILE = "few_shot.partial.jsonl"  # finished work, until the results are written


def evaluate(
    source: str | Path,
    data_url: str | None,
    config: FewShotConfig,
    out_dir: str | Path,
    *,
    augment: Sequence[AugmentOp] | None = None,
    pretraining_seed: int = 0,
    pretraining_s: float | None = None,
    finished_file: str | Path | None = None,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Evaluate the encoder of ``load_encoder(source)`` on labelled windows of people never seen.

    data_url: the folder that has ``label`` and ``test``, or a shard folder that ``config.task``
    divides as ``shards split`` does; None: ``config.task.data``.
    augment: of the trained arms; by default that of a default run. pretraining_s: for the report.
    finished_file: keeps finished work (``FinishedWork``) for this and other evaluations, also at
    the same time; by default a file in ``out_dir``, which is deleted when the results are written.
    jobs: processes at once, forks of this one (None: one a core); it does not change the results.

    Prints progress and the table, writes ``few_shot.json`` and the report into ``out_dir``, and
    returns the results (``results.assemble``), with descriptions of ``encoder`` and ``data``.
    Raises ValueError where encoder and windows do not fit or make no few-shot task, OSError where
    something is missing, or ``out_dir`` has results of another evaluation or cannot be written.
    """
    urls = _places(data_url, config)
    encoder = load_encoder(source, calibrated=config.calibrated)
    check_writable(Path(out_dir))
    check_sources(config.own)
    task = load_task(urls, encoder.card, config.task, any_windows=config.adapt)
    check_same_evaluation(Path(out_dir), encoder.card, task, config)
    encoder = _adapted(encoder, task, config) if config.adapt else encoder
    card = encoder.card
    own_file = Path(out_dir) / FINISHED_FILE
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    with limited_threads(config.threads or 1):
        without_labels = run_without_labels(
            encoder, card, task.test, config, split=task.split, pretraining_seed=pretraining_seed
        )
    results = run_few_shot(
        task.label,
        task.test,
        encoder,
        lambda seed: untrained_copy(encoder, card, seed),
        build_augment(augment, card.units),
        config,
        split=task.split,
        pretraining_seed=pretraining_seed,
        may_share=config.task.may_share,
        finished=FinishedWork(Path(finished_file or own_file), shared=finished_file is not None),
        jobs=len(os.sched_getaffinity(0)) if jobs is None else jobs,
    )
    results |= without_labels | {"map": feature_map(encoder, task.test)}
    _add_descriptions(results, card, task, config, augment, pretraining_s)
    write_results(results, out_dir)
    own_file.unlink(missing_ok=True)
    shown = [f"report   {page}"] if (page := Path(out_dir) / PAGE_FILE).is_file() else []
    print(format_table(results), *format_without_labels(results), *shown, sep="\n")
    return results


def _adapted(
    encoder: PretrainedEncoder, task: FewShotTask, config: FewShotConfig
) -> PretrainedEncoder:
    """The encoder for the task's windows, with the mean and deviation of the label people's."""
    if config.prompts or config.retrieval:
        raise ValueError(
            "few_shot.adapt: prompts and retrieval ask the encoder as it was pretrained; leave "
            "them out, or leave few_shot.adapt out"
        )
    imu = task.label.imu.double()
    std = imu.std((0, 2)).clamp_min(SMALLEST_STD).tolist()
    adapted, kept = adapt_encoder(encoder, task.format, imu.mean((0, 2)).tolist(), std)
    print(
        f"adapt    input made anew for {', '.join(task.format.channels)} at "
        f"{task.format.rate_hz:g} Hz: {100 * kept:.1f} % of {adapted.card.parameters:,} parameters "
        "are the pretrained encoder's"
    )
    return adapted


def _places(data_url: str | None, config: FewShotConfig) -> list[str]:
    if data_url is not None:
        return [parse_place(data_url)]
    if not config.task.data:
        raise ValueError("what is classified is not named; give --data or few_shot.task.data")
    return [parse_place(url) for url in config.task.data]


def _add_descriptions(
    results: dict[str, Any],
    card: EncoderCard,
    task: FewShotTask,
    config: FewShotConfig,
    augment: Sequence[AugmentOp] | None,
    pretraining_s: float | None,
) -> None:
    results["encoder"] = {
        "name": card.encoder.name,
        "parameters": card.parameters,
        "calibration": card.calibration.kind,
        "pretraining": card.data.get("run", ""),
        "datasets": _described_datasets(card.data.get("train", [])),
    }
    results["data"] = task.data
    results["augment"] = [
        op.model_dump(mode="json") for op in build_augment(augment, card.units).ops
    ]
    for run in results["runs"]:
        run["weights_sha256"] = card.weights_sha256  # says which export the results are of
        run["cost"]["pretraining_s"] = pretraining_s
        run["audit"] = task.audit.as_dict()["shared"]
        run["pretrained_people"] = task.pretrained_people


def check_same_evaluation(
    out: Path, card: EncoderCard, task: FewShotTask, config: FewShotConfig
) -> None:
    """FileExistsError where ``out`` holds results of another encoder, or of another task.

    Those of the same ones with other arms, labels or draws may be replaced, and so may damaged
    results. What a run of the same name has exported anew counts as the same encoder.
    """
    path = out / RESULTS_FILE
    run = {
        "weights_sha256": card.weights_sha256,
        "split": task.split,
        "label_people": task.label.people,
        "test_people": task.test.people,
    }
    new = {
        "encoder": {"pretraining": card.data.get("run", "")},
        "data": task.data,
        "classes": task.label.classes,
        "protocol": describe_protocol(config),
    }
    wanted = _identity(new, run)
    try:
        held = read_results(path, checked=False)
        found = [_identity(held, one) for one in held["runs"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    differing = [name for name in wanted if any(one[name] != wanted[name] for one in found)]
    if differing:
        raise FileExistsError(
            f"{path} holds results of another {' and '.join(differing)}; name another folder with "
            f"--out, or delete {out}"
        )


def _identity(results: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What tells evaluations apart, by its name for people."""
    return {
        "encoder": results["encoder"]["pretraining"] or run["weights_sha256"],
        "data": sorted(results["data"]["datasets"]),
        "list of classes": list(results["classes"]),
        "task": results["protocol"].get("task", {}),
        "split": [run["split"], [*run["label_people"]], [*run["test_people"]]],
    }


def write_results(results: Mapping[str, Any], out_dir: str | Path) -> None:
    """Write ``few_shot.json`` and then the report of results, single or pooled.

    If the report cannot be drawn, a line says so, and no earlier one is left.
    """
    out, files = Path(out_dir), {}
    write_atomically(out / RESULTS_FILE, json.dumps(results) + "\n")
    try:
        with explain_failed_page(str(out / PAGE_FILE), str(out / RESULTS_FILE)):
            files = render_files(results)
    except ValueError as error:
        print(error, file=sys.stderr)
    write_files(out, files)


def redraw_report(path: Path, out: Path) -> None:
    """Write the report of the results file at ``path`` into the folder ``out``.

    Raises as ``read_results``, and ValueError where it cannot be drawn; then an earlier one stays.
    """
    results = read_results(path)
    with explain_failed_page(str(out / PAGE_FILE), str(path)):
        files = render_files(results)
    write_files(out, files)


def pool_reports(paths: Sequence[str | Path], out_dir: str | Path) -> Path:
    """Pool the ``few_shot.json`` files at ``paths`` and write results and report of all.

    Returns the path of the pooled ``few_shot.json``. Raises FileNotFoundError or ValueError naming
    the file that is missing or is no such result, and as ``results.pool``.
    """
    write_results(pool([read_results(Path(path)) for path in paths]), out_dir)
    return Path(out_dir) / RESULTS_FILE


def untrained_copy(pretrained: ImuEncoder, card: EncoderCard, seed: int) -> nn.Module:
    """An encoder of the card's architecture with new weights.

    Its buffers, the mean and deviation of the data, are copied from the pretrained encoder. It has
    no calibration, which would not fit its features.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder_of(card)
    for name, buffer in encoder.named_buffers():
        buffer.copy_(pretrained.get_buffer(name))
    return encoder


def read_results(path: Path, *, checked: bool = True) -> dict[str, Any]:
    """The results in a ``few_shot.json``.

    checked: compute the figures again from the answers, which takes a second or two.
    FileNotFoundError naming it where it is missing, ValueError where it is of another schema, lacks
    a field or has figures that do not follow from its answers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; primus-scale evaluate writes it")
    results = parse_json(path.read_bytes(), str(path), advice=AGAIN)
    if isinstance(results, dict) and "trial" in results:
        raise ValueError(
            f"{path} has the figures of a study's trial, and no answers; give the "
            f"few_shot/{RESULTS_FILE} of its run ({results.get('run')} in the study's folder)"
        )
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema is {schema!r}, this program reads {SCHEMA}; {AGAIN}")
    if lacking := [field for field in _FIELDS if not isinstance(results.get(field), dict | list)]:
        raise ValueError(f"{path}: field {lacking[0]} is missing; {AGAIN}")
    if checked:
        check_results(results, str(path))
    return dict(results)


def _described_datasets(train: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for source in train:
        notes.update(source.get("provenance", {}).get("datasets", {}))
    return notes
