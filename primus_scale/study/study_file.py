"""The file of a study: one configuration in several variants, on the same splits and seeds.

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

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from primus_scale.config import ConfigModel
from primus_scale.config_file import merge_settings, parse_config
from primus_scale.storage.files import write_atomically
from primus_scale.storage.names import check_name, nearest
from primus_scale.storage.yaml_text import read_yaml

Tree = dict[str, Any]
STUDY_FILE = "study.yaml"  # in the folder of a study
_TAKEN = re.compile(r"results|tune|data|split-?\d+")  # names of other folders of a study


class LeftOut(ConfigModel):
    """Names of what a variant is not pretrained on: a window that is of one of them is left out."""

    placement: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    person: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """The fields that name something; empty where nothing is left out."""
        return {by: names for by, names in dict(self).items() if names}


class Variant(ConfigModel):
    """What differs: settings that replace the configuration's, seeds the study's, and the data."""

    settings: Tree = Field({})
    seeds: tuple[int, ...] | None = None
    pretrain_without: LeftOut = LeftOut()


class Study(ConfigModel):
    """The content of a study's file; ``variants`` by name."""

    config: str
    name: str = ""  # on its page; empty: the file's
    splits: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    seeds: tuple[int, ...] = Field((0, 1), min_length=1)
    # where packed/train, packed/validation and few_shot/ are, {split} in it stands for the number
    # of a split; None: below the study's output, where the built-in data are built
    data: str | None = None
    # the people of the built-in data who are tested in each split, by their numbers; empty: a split
    # draws them
    test_people: dict[int, tuple[int, ...]] = Field({})
    reference: str | None = None  # the variant that others are compared with; None: the first
    evaluate: bool = True  # False: only the cost of pretraining is of interest
    settings: Tree = Field({})
    variants: dict[str, Variant] = Field({"default": Variant()}, min_length=1)

    @property
    def compared_with(self) -> str:
        """The variant that the others are compared with, of those that are here."""
        there = self.reference in self.variants
        return self.reference if there and self.reference else next(iter(self.variants))

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The pretraining seeds of a variant."""
        return self.variants[name].seeds or self.seeds

    def settings_of(self, name: str) -> Tree:
        """The settings of a variant that replace the configuration's."""
        return merge_settings(self.settings, self.variants[name].settings)


def read_study(path: Path) -> Study:
    """The study in a file, its ``config`` as a path; ValueError naming the file and the field."""
    if not path.is_file():
        raise FileNotFoundError(f"no study {path}; the ready ones are in configs/studies/")
    try:
        tree = read_yaml(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no mapping at its top level; see configs/studies/")
    study = parse_config(Study, tree, source=str(path))
    _check_once("splits", study.splits, str(path))
    _check_once("seeds", study.seeds, str(path))
    for name, variant in study.variants.items():
        _check_once(f"variants.{name}.seeds", variant.seeds, str(path))
        check_name(name, f"{path}: variants", plain=True)  # it names a folder
        if _TAKEN.fullmatch(name):
            raise ValueError(
                f"{path}: variants: {name!r} is the name of another folder of a study; choose "
                "another name"
            )
    if study.reference is not None and study.reference not in study.variants:
        near = nearest(study.reference, study.variants, "variant")
        raise ValueError(f"{path}: reference: {study.reference!r} is no variant of it{near}")
    if study.test_people and study.data is not None:
        raise ValueError(
            f"{path}: test_people are of the built-in data, and data names others; leave out one"
        )
    own = {"config": str(path.parent / study.config), "name": study.name or path.stem}
    return study.model_copy(update=own)


def write_study(study: Study, out: Path) -> None:
    """Keep the study in its folder, as it was done: ``study.yaml``, which ``read_study`` reads."""
    config = str(Path(study.config).resolve())
    kept = study.model_copy(update={"config": config, "reference": study.compared_with})
    tree = kept.model_dump(mode="json", exclude_defaults=True)
    write_atomically(out / STUDY_FILE, yaml.safe_dump(tree, sort_keys=False))


def add_part(parser: argparse.ArgumentParser) -> None:
    """``--variants --splits --seeds``: the part of a study that a command does."""
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these of the study")
    parser.add_argument("--splits", type=int, nargs="+", help="splits of people, not the study's")
    parser.add_argument("--seeds", type=int, nargs="+", help="pretraining seeds, not the study's")


def choose_part(
    study: Study,
    variants: Sequence[str] | None = None,
    splits: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Study:
    """The study with these variants, splits and seeds only, its own where None.

    ValueError naming a variant that the study does not have, a number that is given twice, or a
    split that its ``test_people`` lacks.
    """
    _check_once("--splits", splits)
    _check_once("--seeds", seeds)
    kept = dict(study.variants)
    if variants:
        if unknown := set(variants) - kept.keys():
            near = nearest(min(unknown), kept, "variant")
            raise ValueError(f"{min(unknown)!r} is no variant of the study{near}")
        kept = {name: kept[name] for name in variants}
    if seeds:
        kept = {name: one.model_copy(update={"seeds": None}) for name, one in kept.items()}
    changes = {"splits": splits, "seeds": seeds}
    given = {name: tuple(numbers) for name, numbers in changes.items() if numbers}
    part = study.model_copy(update={**given, "variants": kept})
    if part.test_people and (without := set(part.splits) - part.test_people.keys()):
        there = ", ".join(map(str, part.test_people))
        raise ValueError(
            f"the study's test_people has no split {min(without)}; choose of {there}, or add "
            "who is tested in it"
        )
    return part


def _check_once(field: str, numbers: Sequence[int] | None, source: str = "") -> None:
    """ValueError where a list names no number, or one twice: two trials would have one folder."""
    where = f"{source}: {field}" if source else field
    if numbers is None:
        return
    if not numbers:
        raise ValueError(f"{where} is empty; name one number at least, or leave it out")
    if twice := [number for number in numbers if list(numbers).count(number) > 1]:
        raise ValueError(f"{where} names {twice[0]} twice; name each number once")


def write_variant(study: Study, name: str, path: Path) -> None:
    """Write the configuration of a variant, with the study's as its base."""
    tree = {"base": str(Path(study.config).resolve()), "name": name}
    tree = merge_settings(tree, study.settings_of(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
