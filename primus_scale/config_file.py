"""Read configurations from YAML files with ``key.sub=value`` overrides; mistakes are explained.

    config = load_config("configs/demo.yaml", ["optimizer.lr=3e-4", "train.steps=100"])

A file may name another one as its base, by a path relative to itself, and holds only what differs:

    base: ../demo.yaml
    name: mild
    train: {steps: 900}      # the other settings of train are the base's

Mappings are merged; all other values, lists too, are replaced. A base may have a base. Overrides
are applied last. A run writes the complete configuration, without a base, next to its checkpoints.

An unknown key is refused with the nearest known one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from primus_scale.config import AUGMENT_OPS, Config, ConfigModel
from primus_scale.storage.names import MOST_QUOTED, nearest, quoted
from primus_scale.storage.urls import redact
from primus_scale.storage.yaml_text import MOST_BYTES, read_yaml

BASE = "base"  # key of a file, not of the configuration
_MOST_TOLD = 10  # faults of a file in one message

ModelT = TypeVar("ModelT", bound=ConfigModel)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration from a YAML file and its bases, and apply ``key.sub=value`` overrides.

    Raises FileNotFoundError where the file or a base is missing. Raises ValueError where a key is
    unknown (with the nearest known one), a value has a wrong type, or a base leads back to itself;
    it names the files and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}; the ready ones are in configs/")
    tree, files = _read_with_bases(path)
    for override in overrides:
        _apply_override(tree, override)
        if BASE in tree:
            raise ValueError(f"override {redact(override)!r}: a base is named in a file only")
    return parse_config(Config, tree, source=" with its base ".join(map(str, files)))


def _read_with_bases(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """The tree of a file merged into those of its bases; the files, the last base last."""
    files, trees = [path], [_read_mapping(path)]
    while BASE in trees[-1]:
        base = _find_base(files, trees[-1].pop(BASE))
        files.append(base)
        trees.append(_read_mapping(base))
    merged: dict[str, Any] = {}
    for tree in reversed(trees):
        merged = merge_settings(merged, tree)
    return merged, files


def _find_base(files: Sequence[Path], base: object) -> Path:
    """The file that the last of ``files`` names as its base; each is the base of the one before."""
    path = files[-1]
    if not isinstance(base, str) or not base:
        got = quoted(redact(str(base)))
        raise ValueError(f"{path}: base must be the path of a configuration file (got {got})")
    found = path.parent / base
    try:
        there = found.is_file()
    except OSError:  # of a name that is too long
        there = False
    if not there:
        raise FileNotFoundError(
            f"{path}: its base {quoted(redact(base))} is no file; write its path relative to the "
            f"folder {path.parent}"
        )
    if found.resolve() in [file.resolve() for file in files]:
        circle = " -> ".join(map(str, [*files, found]))
        raise ValueError(f"{path}: its base {found} is based on {path} ({circle}); remove one base")
    return found


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A new tree: ``base`` with the values of ``over``; mappings are merged, all else replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            below = merged.get(key)
            value = merge_settings(below if isinstance(below, dict) else {}, value)
        merged[key] = value
    return merged


def _read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError where it holds something else."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        tree = read_yaml(data)
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {redact(str(error))}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no mapping at its top level; see configs/demo.yaml")
    return tree


def parse_config(model: type[ModelT], tree: Mapping[str, Any], source: str) -> ModelT:
    """Validate ``tree`` as ``model``; errors have the form ``source: field: what is wrong``."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        lines = [_explain(model, dict(problem)) for problem in problems[:_MOST_TOLD]]
        if more := len(problems) - len(lines):
            lines.append(f"and {more} more")
        raise ValueError(f"{source}: " + "; ".join(lines)) from None


def apply_overrides(config: ModelT, overrides: Iterable[str]) -> ModelT:
    """A copy of ``config`` with ``key.sub=value`` overrides applied and validated."""
    tree = config.model_dump(mode="json")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(type(config), tree, source="overrides")


def dump_config(config: ConfigModel) -> str:
    """The whole resolved configuration as YAML, in the order of the fields."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    override = redact(override)  # in messages, from here on
    if not separator or not key:
        raise ValueError(f"override {override!r} is not of the form key.sub=value")
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ValueError(f"override {override!r}: {parent!r} has no fields below it")
    try:
        node[last] = _parse_value(text)
    except ValueError as error:
        reason = re.sub(r"^line 1, column \d+: ", "", str(error))
        raise ValueError(
            f"override {quoted(override)} has no valid YAML value ({reason})"
        ) from None


def _parse_value(text: str) -> Any:
    """A YAML value; also numbers such as ``3e-4``, which YAML 1.1 takes for text."""
    value = read_yaml(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    location = _dotted(problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, problem["loc"][:-1])
        return f"unknown key {quoted(redact(location))}{nearest(location, known, 'known key')}"
    # Secrets are removed before the text is shortened: half a URL may not look like one.
    told = _cut(redact(problem["msg"]).removeprefix("Value error, "), 500)
    if problem["type"] == "value_error" and isinstance(problem.get("input"), dict):
        # It names the fields and their values.
        return f"{_cut(location, MOST_QUOTED)}: {told}" if location else told
    got = _cut(redact(repr(problem.get("input"))), MOST_QUOTED)
    return f"{_cut(location, MOST_QUOTED)}: {told} (got {got})"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 2) :]}"


def _known_keys(model: type[BaseModel], around: Sequence[str | int]) -> list[str]:
    """The known keys for a location: those of an augmentation inside of one, otherwise all.

    Below a mapping, such as the variants of a study, also those of the model there.
    """
    if around and around[-1] in AUGMENT_OPS:
        return _all_keys(AUGMENT_OPS[str(around[-1])], f"{_dotted(around)}.")
    if (inner := _model_below_mapping(model, around)) is not None:
        return [*_all_keys(inner, f"{_dotted(around)}."), *_all_keys(model)]
    return [*_all_keys(model), BASE] if model is Config else _all_keys(model)


def _model_below_mapping(
    model: type[BaseModel], around: Sequence[str | int]
) -> type[BaseModel] | None:
    """The model whose fields stand at a location, where a mapping of names is on the way to it."""
    at: Any = model
    below = False
    for part in around:
        if get_origin(at) is dict:
            at, below = get_args(at)[1], True
        else:
            field = getattr(at, "model_fields", {}).get(part)
            at = field.annotation if field else None
    return at if below and isinstance(at, type) and issubclass(at, BaseModel) else None


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def _dotted(location: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in location)
