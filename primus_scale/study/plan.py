"""The trials of a study, in a file of their own before the first one starts: ``plan.csv``.

    trial,variant,split,seed,config,settings
    near_alone-split1-seed0,near_alone,1,0,5f0c0a9d21be,"{""objective"": ...}"

``settings`` are those that replace the configuration's, ``config`` is a digest of the whole
configuration. A study that is started again may have more trials or fewer, but a trial that was
planned or finished with other settings is refused: its results would stand beside those of the new
settings. The results of a trial keep the digest, since a later plan may lack the trial.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from primus_scale.config import Config
from primus_scale.config_file import dump_config, load_config
from primus_scale.storage.files import write_atomically
from primus_scale.storage.urls import parse_place
from primus_scale.study.records import read_records
from primus_scale.study.study_file import Study, write_variant

PLAN_FILE = "plan.csv"
TRAINING = "packed/train"  # in the folder of a split's data
COLUMNS = ("trial", "variant", "split", "seed", "config", "settings")
_DIGITS = 12  # of a digest


class Trial(NamedTuple):
    """One pretraining of a variant, with its evaluation: its split of people and its seed."""

    variant: str
    split: int
    seed: int

    @property
    def id(self) -> str:
        """Its name, in the plan and in Ray's records."""
        return f"{self.variant}-split{self.split}-seed{self.seed}"

    def folder(self, out: Path) -> Path:
        """The output of the run, in the folder ``out`` of the study."""
        return out / f"split{self.split}" / self.variant / f"seed{self.seed}"

    def log(self, out: Path) -> Path:
        """What the run prints."""
        return self.folder(out).with_suffix(".log")

    def failure(self, out: Path) -> Path:
        """The error with which its last start ended, where it did."""
        return self.folder(out).with_suffix(".error")


def plan_trials(study: Study) -> list[Trial]:
    """All trials of a study: variants, seeds of each, splits of each."""
    return [
        Trial(name, split, seed)
        for name in study.variants
        for seed in study.seeds_of(name)
        for split in study.splits
    ]


def variant_file(out: Path, variant: str) -> Path:
    """The configuration of a variant, in the folder of the study."""
    return out / variant / "config.yaml"


def write_variants(study: Study, out: Path, overrides: Sequence[str] = ()) -> dict[str, Config]:
    """Write the configuration of each variant and read it again, with ``overrides``.

    ValueError naming the file and the field where one is wrong.
    """
    configs = {}
    for name in study.variants:
        write_variant(study, name, variant_file(out, name))
        configs[name] = load_config(variant_file(out, name), overrides)
    return configs


def data_of(study: Study, out: Path, split: int) -> str:
    """Where the data of a split are: packed/train, packed/validation and few_shot/ below it."""
    if study.data is None:
        return str(out / f"split{split}" / "data")
    return parse_place(study.data.replace("{split}", str(split)))


def training_of(study: Study, out: Path, variant: str, split: int) -> str:
    """The shard folder that a variant is pretrained on: all of a split's, or what it leaves."""
    if study.variants[variant].pretrain_without.named:
        return str(out / f"split{split}" / variant / TRAINING)
    return f"{data_of(study, out, split)}/{TRAINING}"


def own_settings(trial: Trial, out: Path, train: str, validation: str | None) -> list[str]:
    """The ``key=value`` settings that make a trial's run of its variant.

    train, validation: its shard folders; None where there are no windows for validation.
    """
    return [
        f"output={trial.folder(out)}",
        f"seed={trial.seed}",
        f"data.train={json.dumps([train])}",
        f"data.validation={json.dumps([validation] if validation else [])}",
    ]


def write_plan(
    study: Study, trials: Sequence[Trial], configs: Mapping[str, Config], out: Path
) -> None:
    """Write ``plan.csv``.

    ValueError where a trial is planned there, or finished, with other settings; as
    ``read_records``.
    """
    digests = {
        name: _digest(config, _data_settings(study, name)) for name, config in configs.items()
    }
    rows = [
        {
            **trial._asdict(),
            "trial": trial.id,
            "config": digests[trial.variant],
            "settings": json.dumps(
                study.settings_of(trial.variant) | _data_settings(study, trial.variant),
                sort_keys=True,
            ),
        }
        for trial in trials
    ]
    path = out / PLAN_FILE
    before = {row["trial"]: row for row in read_plan(path)} if path.is_file() else {}
    finished = read_records(out)
    for row in rows:
        done = finished.get(row["trial"], {}).get("config") or row["config"]  # older ones lack it
        if done != row["config"]:
            raise ValueError(
                f"{out}: trial {row['trial']} was finished with other settings than those of now "
                f"({row['settings']}), or with another base configuration; choose another --out, "
                "or give the changed variant a new name"
            )
        planned = before.get(row["trial"], row)
        if planned["config"] != row["config"]:
            raise ValueError(
                f"{path}: trial {row['trial']} was planned with other settings "
                f"({planned['settings']}) or another base configuration than those of now "
                f"({row['settings']}); choose another --out, or give the changed variant a new name"
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read_plan(path: Path) -> list[dict[str, str]]:
    """The rows of a plan; FileNotFoundError where there is none, ValueError where it is none."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {path.parent} is no study's folder; primus-scale study run writes "
            "it first"
        )
    again = "start the study again (primus-scale study run), which writes it anew"
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        rows, columns = list(reader), tuple(reader.fieldnames or ())
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no plan of a study ({error}); delete it and {again}") from None
    if columns != COLUMNS or any(None in row.values() or None in row for row in rows):
        raise ValueError(
            f"{path} is no plan of a study: its columns are not {', '.join(COLUMNS)}; delete it "
            f"and {again}"
        )
    if not rows:
        raise ValueError(f"{path} plans no trial; delete it and {again}")
    return rows


def planned_config(out: Path, trial: Trial) -> str | None:
    """The digest of the configuration that a trial is planned with; None without a plan of it."""
    path = out / PLAN_FILE
    rows = read_plan(path) if path.is_file() else []
    return next((row["config"] for row in rows if row["trial"] == trial.id), None)


def planned_trials(path: Path) -> list[Trial]:
    """The trials of a plan; as ``read_plan``, and ValueError where a number is none."""
    try:
        return [
            Trial(row["variant"], int(row["split"]), int(row["seed"])) for row in read_plan(path)
        ]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _data_settings(study: Study, variant: str) -> dict[str, Any]:
    """What a variant leaves out of the data, by the name of its field; empty where nothing."""
    named = study.variants[variant].pretrain_without.named
    return {"pretrain_without": named} if named else {}


def _digest(config: Config, data: Mapping[str, Any]) -> str:
    """Of a variant's configuration, without what only tells where and how it computes.

    data: what it leaves out of the data.
    """
    plain = config.model_copy(update={"output": "", "launch": type(config.launch)()})
    text = dump_config(plain) + (json.dumps(data, sort_keys=True) if data else "")
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
