"""A few-shot study: one configuration in several variants, on the same splits and seeds.

A study is a YAML file, such as configs/studies/terms.yaml:

    config: ../demo.yaml          # of every variant, by a path relative to the study
    splits: [1, 2, 3]             # of people
    seeds: [0]                    # of pretraining
    settings: {few_shot: {k: [1, 5]}}       # replace those of the configuration
    variants:
      default: {seeds: [0, 1]}              # more seeds for this one
      near_alone: {settings: {objective: {weights: {imu_imu: 0}}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from primus_scale.config import ConfigModel
from primus_scale.config_file import merge_settings, parse_config
from primus_scale.evaluate.arm_table import ARMS, FIXED_BASELINES
from primus_scale.evaluate.results import best_baselines, format_interval
from primus_scale.storage.names import check_name
from primus_scale.storage.yaml_text import read_yaml

Tree = dict[str, Any]


class Variant(ConfigModel):
    """What differs: settings that replace the configuration's, and seeds the study's."""

    settings: Tree = Field({})
    seeds: tuple[int, ...] | None = None


class Study(ConfigModel):
    """The content of a study's file; ``variants`` by name."""

    config: str
    splits: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    seeds: tuple[int, ...] = Field((0, 1), min_length=1)
    settings: Tree = Field({})
    variants: dict[str, Variant] = Field({"default": Variant()}, min_length=1)

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The pretraining seeds of a variant."""
        return self.variants[name].seeds or self.seeds


def read_study(path: Path) -> Study:
    """The study in a file, its ``config`` as a path; ValueError naming the file and the field."""
    if not path.is_file():
        raise FileNotFoundError(f"no study {path}; the ready ones are in configs/studies/")
    tree = read_yaml(path.read_bytes())
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no mapping at its top level; see configs/studies/")
    study = parse_config(Study, tree, source=str(path))
    for name in study.variants:
        check_name(name, f"{path}: variants")  # it names a folder
    return study.model_copy(update={"config": str(path.parent / study.config)})


def write_variant(study: Study, name: str, path: Path) -> None:
    """Write the configuration of a variant, with the study's as its base."""
    tree = {"base": str(Path(study.config).resolve()), "name": name}
    for settings in (study.settings, study.variants[name].settings):
        tree = merge_settings(tree, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def summarise(results: Mapping[str, Mapping[str, Any]]) -> Tree:
    """The accuracies and differences of each variant's pooled results, without their records."""
    kept = ("few_shot", "paired", "protocol", "encoder", "classes")
    return {
        name: {key: pooled[key] for key in kept if key in pooled}
        | {"runs": [(run["split"], run["pretraining_seed"]) for run in pooled["runs"]]}
        for name, pooled in results.items()
    }


def format_study(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of the frozen encoder: its accuracy, and its gain over the best fixed baseline.

    Markdown, a row for each variant and, in the first table, for each baseline.
    """
    first = next(iter(results.values()))
    columns = list(first["few_shot"])
    head = "".join(f" | k = {k}" for k in columns) + " |"
    rule = "| --- " * (len(columns) + 1) + "|"
    accuracy = [_row(ARMS[name].title, first["few_shot"], name) for name in FIXED_BASELINES]
    accuracy += [_row(name, pooled["few_shot"], "pretrained") for name, pooled in results.items()]
    gains = [_gain_row(name, pooled) for name, pooled in results.items()]
    title = ["", f"| frozen encoder - best baseline, points{head}", rule]
    return "\n".join([f"| accuracy, %{head}", rule, *filter(None, accuracy), *title, *gains])


def _row(title: str, few_shot: Mapping[str, Any], arm: str) -> str:
    cells = [format_interval(row[arm]) if arm in row else "-" for row in few_shot.values()]
    return "| " + " | ".join([title, *cells]) + " |" if set(cells) != {"-"} else ""


def _gain_row(title: str, pooled: Mapping[str, Any]) -> str:
    best, paired = best_baselines(pooled), pooled["paired"]
    cells = [
        format_interval(paired[k]["pretrained"][best[k]], "+") if k in best else "-"
        for k in pooled["few_shot"]
    ]
    return "| " + " | ".join([title, *cells]) + " |"
