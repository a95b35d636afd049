"""The few-shot task of an evaluation: windows for labels and for the test, and who they are of.

The sides are two shard folders, or people of one folder that are drawn as ``shards split`` draws
them. Each task is audited: what its sides share, and who of its people was in the pretraining data.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from primus_scale.data.index import INDEX_NAME
from primus_scale.data.reader import LoadedWindows, load_windows
from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.sample import NO_LABEL, WindowMeta
from primus_scale.splits.audit import Audit, audit, format_audit, refuse
from primus_scale.splits.counts import SplitCounts
from primus_scale.splits.sides import draw_sides, known_person, units_of
from primus_scale.splits.spans import Spans, sample_hash, window_spans
from primus_scale.splits.words import LABEL, TEST
from primus_scale.storage.folder import Folder


@dataclass(frozen=True)
class FewShotTask:
    """Both sides, and what is known of them.

    found: what they share. pretrained_people: by side how many of its people were in the
    pretraining data, with ``complete``, whether all of that data names its people; None: none of it
    does. split: the number of the split of people; made from the tested people's names where the
    data have none. data: a description for the report.
    """

    label: LabelledWindows
    test: LabelledWindows
    found: Audit
    pretrained_people: dict[str, Any] | None
    split: int
    data: dict[str, Any]


def load_task(
    data_url: str,
    card: EncoderCard,
    *,
    test_people: float | None = None,
    split_seed: int = 0,
    may_share: Collection[str] = (),
    report: Callable[[str], None] = print,
) -> FewShotTask:
    """Read the folders ``label`` and ``test`` of a URL, or divide the shard folder there by people.

    test_people: the share of people for the test, drawn by ``split_seed``; None: there are two
    folders. may_share: what the sides may share (``words.KINDS``). report: called with what one
    should know. ValueError where the windows are not those of ``card``, the people cannot be
    divided, or the sides share what they must not (``audit.refuse``); as ``load_windows``.
    """
    if test_people is None:
        sides, classes, split = _two_folders(data_url, card)
    else:
        sides, classes = _divided(data_url, card, test_people, split_seed, report)
        split = split_seed
    datasets = {meta.dataset for side in sides for meta in side.metas}
    label, test = (side.windows(classes, datasets) for side in sides)
    found = audit(sides[0].spans(), sides[1].spans())
    refuse(found, may_share)
    if shared := found.kinds():
        report(f"note: label/ and test/ have {', '.join(shared)} in common\n{format_audit(found)}")
    pretrained = _pretrained_people(card, sides, datasets)
    report(describe_pretrained(pretrained, len(label.people), len(test.people)))
    return FewShotTask(label, test, found, pretrained, split, _describe_data(sides[1]))


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
class _Side:
    """The windows of a side that have a label: rows of ``loaded``."""

    name: str
    loaded: LoadedWindows
    rows: np.ndarray

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
        names = [self.loaded.labels[i] for i in self.loaded.label.numpy()[self.rows]]
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


def _two_folders(data_url: str, card: EncoderCard) -> tuple[list[_Side], list[str], int]:
    """The sides as they lie in two folders, the classes of labels, and the number of the split."""
    sides = []
    for name in (LABEL, TEST):
        loaded = _load(f"{data_url}/{name}", card, data_url)
        sides.append(_Side(name, loaded, np.flatnonzero(loaded.label.numpy() != NO_LABEL)))
    number = sides[0].loaded.shard_set.index.provenance.get("split")
    split = _number_of(sides[1].people(())) if number is None else int(number)
    return sides, list(sides[0].loaded.labels), split


def _number_of(people: Collection[str]) -> int:
    """A number for a split that has none, from who is tested, so that splits can be pooled."""
    return zlib.crc32("\x1f".join(sorted(set(people))).encode("utf-8"))


def _divided(
    url: str, card: EncoderCard, test: float, seed: int, report: Callable[[str], None]
) -> tuple[list[_Side], list[str]]:
    """The sides as people of one folder, and the classes; people without labels count as well."""
    loaded = _load(url, card, url)
    people = draw_sides(units_of(loaded.metas, "person"), by="person", test=test, seed=seed)
    counts = SplitCounts(loaded.metas, "person", people)
    report(f"split by person, seed {seed}\n{counts.table()}")
    counts.check_classes("take another --split-seed")
    for warning in counts.warnings():
        report(f"note: {warning}")
    side_of, has_label = np.array(counts.side_of), loaded.label.numpy() != NO_LABEL
    sides = [
        _Side(name, loaded, np.flatnonzero(has_label & (side_of == name))) for name in (LABEL, TEST)
    ]
    return sides, counts.classes


def _load(url: str, card: EncoderCard, data_url: str) -> LoadedWindows:
    try:
        loaded = load_windows(url, pictures=False)
    except FileNotFoundError as error:
        if url != data_url and INDEX_NAME in Folder(data_url).names():
            raise FileNotFoundError(
                f"{data_url} holds shards itself, and no folders label/ and test/; say how many of "
                "its people are for the test (--test-people 0.3), or divide it with "
                "primus-scale shards split"
            ) from error
        raise
    card.check_windows(loaded.shard_set.index.window_format, url)
    return loaded


def _pretrained_people(
    card: EncoderCard, sides: Sequence[_Side], datasets: Collection[str]
) -> dict[str, Any] | None:
    """By side the number of people in the pretraining data; see ``FewShotTask``."""
    lists = [_listed_people(source) for source in card.data.get("train", [])]
    named = [people for people in lists if people is not None]
    if not named:
        return None
    everyone = {
        str(known_person(dataset, person, {*datasets, *people}))
        for people in named
        for dataset, of_dataset in people.items()
        for person in of_dataset
    }
    counts = {side.name: len(everyone & set(side.people(datasets))) for side in sides}
    return {**counts, "complete": len(named) == len(lists)}


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
