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
_FIELDS = {  # that a file must have, with the types of their values
    **dict.fromkeys(("trial", "variant", "revision", "task"), str),
    **dict.fromkeys(("split", "seed"), int),
    **dict.fromkeys(("few_shot", "cost"), dict),
}
_INTERVAL = ("mean", "low", "high")
_ADVICE = "restore it, or delete it, and the study does this trial's evaluation again"

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

    ValueError naming the file where one is damaged, of another schema, or of another trial than its
    place says, and where two are of one trial.
    """
    records: dict[str, Record] = {}
    files: dict[str, Path] = {}
    for path in sorted((out / RESULTS_FOLDER).glob("*/*/*.json")):
        record = _read_record(path)
        trial = record["trial"]
        if trial in files:
            raise ValueError(
                f"{files[trial]} and {path} are both of trial {trial}; delete the one that is not "
                f"of its run ({record.get('run', 'the revision tells its weights')})"
            )
        records[trial], files[trial] = record, path
    return records


def _read_record(path: Path) -> Record:
    record = parse_json(path.read_bytes(), str(path), advice=_ADVICE)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path}: schema is {schema!r}, this program reads {SCHEMA}; use the version that "
            "wrote it, or delete the file, and the study does this trial's evaluation again"
        )
    if lacking := [field for field in _FIELDS if field not in record]:
        raise ValueError(f"{path}: field {lacking[0]} is missing; {_ADVICE}")
    _check_fields(record, path)
    return dict(record)


def _check_fields(record: Record, path: Path) -> None:
    """ValueError naming the file and the field where a value cannot have been written so."""
    for field, kind in _FIELDS.items():
        if not isinstance(record[field], kind):
            raise ValueError(f"{path}: field {field} is no {kind.__name__}; {_ADVICE}")
    own = f"{record['variant']}-split{record['split']}-seed{record['seed']}"
    if record["trial"] != own:
        raise ValueError(f"{path}: field trial is {record['trial']}, and not {own}; {_ADVICE}")
    place = (record["variant"], record["revision"], f"{record['task']}.json")
    if path.parts[-3:] != place:
        raise ValueError(f"{path}: its content is that of {'/'.join(place)}; {_ADVICE}")
    for k, row in record["few_shot"].items():
        for arm, interval in row.items() if isinstance(row, dict) else [("", None)]:
            figures = [interval.get(end) for end in _INTERVAL] if isinstance(interval, dict) else []
            if not figures or not all(isinstance(figure, int | float) for figure in figures):
                raise ValueError(
                    f"{path}: field few_shot.{k}{'.' * bool(arm)}{arm} is no accuracy with its "
                    f"interval; {_ADVICE}"
                )


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
