"""The results of a study as files: one of each trial, and a CSV and a JSON of all.

    results/<encoder>/<revision>/<task>.json

``encoder`` is the name of the variant, ``revision`` the digest of the exported weights, ``task``
what was evaluated. A file tells how its figures came about: commit, versions, hardware, seeds, and
what they cost. The answers for each person stay in ``few_shot.json`` of the run's folder.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from primus_scale.encoders.card import EncoderCard
from primus_scale.storage.files import write_atomically
from primus_scale.storage.foreign import parse_json

SCHEMA = 1
RESULTS_FOLDER = "results"
RESULTS_CSV, RESULTS_JSON = "results.csv", "results.json"
NO_TASK = "pretraining"  # of a trial that is not evaluated
COST = ("pretraining_s", "evaluation_s", "windows_per_s", "peak_memory_mb")
_COLUMNS = (
    *("trial", "variant", "split", "seed", "revision", "task", "k", "arm"),
    *("accuracy", "low", "high", "people", "draws"),
    *COST,
)
_DIGITS = 12  # of a revision
_FIELDS = ("trial", "variant", "split", "seed", "revision", "task", "few_shot", "cost")

Record = Mapping[str, Any]


def revision_of(card: EncoderCard) -> str:
    """The revision of an exported encoder: the first digits of its weights' sha256."""
    return card.weights_sha256[:_DIGITS]


def write_record(out: Path, record: Record) -> Path:
    """Write the file of a trial; returns its path. OSError naming it where that fails."""
    folder = out / RESULTS_FOLDER / record["variant"] / record["revision"]
    path = folder / f"{record['task']}.json"
    write_atomically(path, json.dumps({"schema": SCHEMA, **record}, indent=1) + "\n")
    return path


def read_records(out: Path) -> dict[str, Record]:
    """The results of all finished trials, by trial.

    ValueError naming the file where one is damaged, or of another schema.
    """
    records = {}
    for path in sorted((out / RESULTS_FOLDER).glob("*/*/*.json")):
        record = _read_record(path)
        records[record["trial"]] = record
    return records


def _read_record(path: Path) -> Record:
    advice = "restore it, or delete it, and the study does this trial's evaluation again"
    record = parse_json(path.read_bytes(), str(path), advice=advice)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path}: schema is {schema!r}, this program reads {SCHEMA}; use the version that "
            "wrote it, or delete the file, and the study does this trial's evaluation again"
        )
    if lacking := [field for field in _FIELDS if field not in record]:
        raise ValueError(f"{path}: field {lacking[0]} is missing; {advice}")
    return dict(record)


def write_all(out: Path, records: Mapping[str, Record]) -> None:
    """Write ``results.csv``, a row for each trial, k and arm, and ``results.json``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for record in records.values():
        cells = [
            {"k": k, "arm": arm, "accuracy": interval["mean"], **interval}
            for k, row in record["few_shot"].items()
            for arm, interval in row.items()
        ]
        writer.writerows({**record, **record["cost"], **cell} for cell in cells or [{}])
    write_atomically(out / RESULTS_CSV, text.getvalue())
    write_atomically(out / RESULTS_JSON, json.dumps(list(records.values()), indent=1) + "\n")
