"""The few-shot task of an evaluation: windows for labels and for the test, and who they are of.

The sides are two shard folders, or people of one folder that are drawn as ``shards split`` draws
them. Each task is audited: what its sides share, and who of its people was in the pretraining data.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from primus_scale.config import TaskConfig
from primus_scale.data.index import INDEX_NAME
from primus_scale.data.reader import LoadedWindows, load_windows
from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.sample import NO_LABEL, WindowFormat, WindowMeta
from primus_scale.splits.audit import (
    PEOPLE,
    Audit,
    audit,
    format_audit,
    refuse,
    spelt_differently,
)
from primus_scale.splits.counts import SplitCounts
from primus_scale.splits.sides import draw_sides, known_person, name_sides, units_of
from primus_scale.splits.spans import Spans, sample_hash, window_spans
from primus_scale.splits.words import LABEL, TEST
from primus_scale.storage.folder import Folder
from primus_scale.storage.names import nearest, quoted

USUAL_TASK = TaskConfig()


@dataclass(frozen=True)
class FewShotTask:
    """Both sides, and what is known of them.

    audit: what they share. pretrained_people: by side how many of its people were in the
    pretraining data, and as ``complete`` whether all of that data names its people; None where none
    of it does. split: the number of the split of people; made from the names of the tested people
    where the data have none. data: a description for the report.
    """

    label: LabelledWindows
    test: LabelledWindows
    audit: Audit
    pretrained_people: dict[str, Any] | None
    split: int
    data: dict[str, Any]
    format: WindowFormat


def load_task(
    urls: Sequence[str],
    card: EncoderCard,
    config: TaskConfig = USUAL_TASK,
    *,
    any_windows: bool = False,
    report: Callable[[str], None] = print,
) -> FewShotTask:
    """Read the windows of a task at ``urls``, and put them on its two sides.

    Without ``config.test`` there is one url, with the folders ``label`` and ``test``. With it the
    urls are shard folders, read as one and divided. any_windows: not only those of ``card``.
    report: called with what one should know. ValueError where the windows are not those of
    ``card``, the units cannot be divided, a label of the map has no window, or the sides share what
    they must not (``audit.refuse``); as ``load_windows``.
    """
    if config.test is None:
        sides, classes, split = _two_folders(urls, config)
    else:
        sides, classes = _divided(urls, config, report)
        split = config.seed or 0
    for side in sides if not any_windows else ():
        card.check_windows(side.format, side.url)
    datasets = {meta.dataset for side in sides for meta in side.metas}
    _check_classes(sides, config)
    label, test = (side.windows(classes, datasets) for side in sides)
    found = audit(sides[0].spans(), sides[1].spans())
    refuse(found, config.may_share)
    if shared := found.kinds():
        report(f"note: label/ and test/ have {', '.join(shared)} in common\n{format_audit(found)}")
    elif note := found[PEOPLE].note:
        report(f"note: people of label/ and test/: {note}")
    known, complete = _pretraining_people(card, datasets)
    of_sides = {side.name: set(side.people(datasets)) for side in sides}
    counts = {name: len(known & people) for name, people in of_sides.items()}
    pretrained = None if complete is None else {**counts, "complete": complete}
    if note := spelt_differently(known, set.union(*of_sides.values())):
        report(f"note: people of the pretraining data and of the task: {note}")
    report(describe_pretrained(pretrained, len(label.people), len(test.people)))
    return FewShotTask(
        label, test, found, pretrained, split, _describe_data(sides[1]), sides[0].format
    )


def describe_pretrained(counts: Mapping[str, Any] | None, label: int, test: int) -> str:
    """A sentence on the people of labels and test, so many, who were in the pretraining data."""
    if counts is None:
        return "people of the pretraining data: not known (the encoder's card names none)"
    partly = "" if counts["complete"] else " (known for a part of that data)"
    return (
        f"people of the pretraining data: {counts[LABEL]} of {label} label people, "
        f"{counts[TEST]} of {test} test people{partly}"
    )


@dataclass(frozen=True)
class _Windows:
    """Windows as they were read. labels: the class of each by the map; None: it has none."""

    loaded: LoadedWindows
    labels: list[str | None]

    @property
    def metas(self) -> list[WindowMeta]:
        """With the labels of the map."""
        pairs = zip(self.loaded.metas, self.labels, strict=True)
        return [replace(meta, label=label) for meta, label in pairs]

    @property
    def has_label(self) -> np.ndarray:
        return np.array([label is not None for label in self.labels])

    @property
    def classes(self) -> list[str]:
        """In the order of the data's class names."""
        held = {label for label in self.labels if label is not None}
        return [
            *(n for n in self.loaded.labels if n in held),
            *sorted(held - {*self.loaded.labels}),
        ]


@dataclass(frozen=True)
class _Side:
    """The windows of a side that have a label: rows of ``of``. url: where they were read."""

    name: str
    url: str
    of: _Windows
    rows: np.ndarray

    @property
    def loaded(self) -> LoadedWindows:
        return self.of.loaded

    @property
    def format(self) -> WindowFormat:
        return self.loaded.shard_set.index.window_format

    @property
    def metas(self) -> list[WindowMeta]:
        return [self.loaded.metas[row] for row in self.rows.tolist()]

    def people(self, datasets: Collection[str]) -> list[str]:
        """The person of each window, with the data set, since several may use the same names."""
        return [str(known_person(meta.dataset, meta.person, datasets)) for meta in self.metas]

    def spans(self) -> Spans:
        window_s = self.loaded.shard_set.index.window_s
        imu = self.loaded.imu[torch.from_numpy(self.rows)].numpy()
        samples = np.array([*map(sample_hash, imu)], dtype=np.int64)
        return window_spans(f"{self.name}/", self.metas, window_s, samples)

    def windows(self, classes: Sequence[str], datasets: Collection[str]) -> LabelledWindows:
        """The windows, with ids into ``classes``; ValueError where a label is none of them."""
        names = [str(self.of.labels[row]) for row in self.rows.tolist()]
        if unknown := sorted(set(names) - set(classes)):
            raise ValueError(
                f"test/ has windows of {', '.join(unknown)}, of which label/ has none; "
                "write both folders with the same classes"
            )
        return LabelledWindows(
            imu=self.loaded.imu[torch.from_numpy(self.rows)],
            label=np.array([classes.index(name) for name in names], dtype=np.int64),
            person=np.array(self.people(datasets)),
            session=np.array([f"{meta.dataset}/{meta.session}" for meta in self.metas]),
            classes=tuple(classes),
            rate_hz=self.loaded.shard_set.index.rate_hz,
        )


def _two_folders(urls: Sequence[str], config: TaskConfig) -> tuple[list[_Side], list[str], int]:
    """The sides as they lie in two folders, the classes of labels, and the number of the split."""
    if len(urls) > 1:
        raise ValueError(
            f"{', '.join(urls)} are read as one and divided: say what is tested "
            "(few_shot.task.test=0.3, or names)"
        )
    read = {name: _load([f"{urls[0]}/{name}"], urls[0]) for name in (LABEL, TEST)}
    _check_map(config.labels, [*read.values()])
    sides = []
    for name, loaded in read.items():
        windows = _relabel(loaded, config.labels)
        rows = np.flatnonzero(windows.has_label)
        sides.append(_Side(name, f"{urls[0]}/{name}", windows, rows))
    number = sides[0].loaded.shard_set.index.provenance.get("split")
    split = _number_of(sides[1].people(())) if number is None else int(number)
    mapped = sides[0].of.classes if config.labels else list(sides[0].loaded.labels)
    return sides, mapped, split


def _relabel(loaded: LoadedWindows, labels: Mapping[str, str | None]) -> _Windows:
    ids = loaded.label.tolist()
    names = [None if i == NO_LABEL else loaded.labels[i] for i in ids]
    return _Windows(loaded, [None if n is None else labels.get(n, n) for n in names])


def _check_map(labels: Mapping[str, str | None], loaded: Sequence[LoadedWindows]) -> None:
    """ValueError naming the nearest where no window has a label of the map."""
    ids = {(of, i) for of, one in enumerate(loaded) for i in set(one.label.tolist())}
    known = sorted({loaded[of].labels[i] for of, i in ids if i != NO_LABEL})
    for label in labels:
        if label not in known:
            near = nearest(label, known, "label")
            raise ValueError(f"few_shot.task.labels: no window has label {quoted(label)}{near}")


def _check_classes(sides: Sequence[_Side], config: TaskConfig) -> None:
    """ValueError where the windows of both sides are of fewer than two classes."""
    classes = sorted({str(side.of.labels[row]) for side in sides for row in side.rows.tolist()})
    if len(classes) > 1:
        return
    urls = " and ".join(dict.fromkeys(side.url for side in sides))
    found = (
        f"all labelled windows of {urls} are {classes[0]}"
        if classes
        else (f"no window of {urls} has a label")
    )
    advice = "write the shards from recordings that have labels of several activities"
    if config.labels:
        advice = "few_shot.task.labels gives windows their classes: correct it"
    raise ValueError(f"{found}, and a task needs two classes; {advice}")


def _number_of(people: Collection[str]) -> int:
    """A number for a split that has none, from who is tested, so that splits can be pooled."""
    return zlib.crc32("\x1f".join(sorted(set(people))).encode("utf-8"))


def _divided(
    urls: Sequence[str], config: TaskConfig, report: Callable[[str], None]
) -> tuple[list[_Side], list[str]]:
    """The sides as units of the windows, and the classes; units without labels count as well."""
    loaded = _load(urls, "")
    _check_map(config.labels, [loaded])
    windows, by = _relabel(loaded, config.labels), config.by
    metas, seed = windows.metas, config.seed or 0
    units = units_of(metas, by)
    if isinstance(config.test, tuple):
        sides_of, how = name_sides(units, by=by, test=config.test), ", ".join(config.test)
    else:
        assert config.test is not None
        sides_of = draw_sides(units, by=by, test=config.test, seed=seed)
        how = f"seed {seed}"
    counts = SplitCounts(metas, by, sides_of)
    report(f"split by {by}, {how}\n{counts.table()}")
    counts.check_classes("take another --split-seed, or test others")
    for warning in counts.warnings():
        report(f"note: {warning}")
    side_of = np.array(counts.side_of)
    sides = [
        _Side(name, ", ".join(urls), windows, np.flatnonzero(windows.has_label & (side_of == name)))
        for name in (LABEL, TEST)
    ]
    return sides, counts.classes


def _load(urls: Sequence[str], data_url: str) -> LoadedWindows:
    """Windows of ``urls``. data_url: where two folders are looked for; else empty."""
    try:
        return load_windows(list(urls), pictures=False)
    except FileNotFoundError as error:
        if data_url and INDEX_NAME in Folder(data_url).names():
            raise FileNotFoundError(
                f"{data_url} holds shards itself, and no folders label/ and test/; say how many of "
                "its people are for the test (--test-people 0.3), or divide it with "
                "primus-scale shards split"
            ) from error
        raise


def _pretraining_people(
    card: EncoderCard, datasets: Collection[str]
) -> tuple[set[str], bool | None]:
    """The people of the pretraining data, and whether that is all of them; None if none are known.

    Named as a side names them, whose windows are of ``datasets``.
    """
    lists = [_listed_people(source) for source in card.data.get("train", [])]
    named = [people for people in lists if people is not None]
    everyone = {
        str(known_person(dataset, person, {*datasets, *people}))
        for people in named
        for dataset, of_dataset in people.items()
        for person in of_dataset
    }
    return everyone, len(named) == len(lists) if named else None


def _listed_people(source: Any) -> dict[str, list[str]] | None:
    """The people of a part of the training data, by data set; the card's field is free JSON."""
    try:
        people = source["provenance"]["people"]
    except (KeyError, TypeError):
        return None
    listed = isinstance(people, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in people.values()
    )
    return people if listed else None


def _describe_data(side: _Side) -> dict[str, Any]:
    index = side.loaded.shard_set.index
    notes = index.provenance.get("datasets", {})
    return {
        "rate_hz": index.rate_hz,
        "window_s": index.window_samples / index.rate_hz,
        "datasets": {
            name: str(notes.get(name, "")) for name in sorted({m.dataset for m in side.metas})
        },
    }
