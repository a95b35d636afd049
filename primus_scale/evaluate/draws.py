"""Choose the windows that an arm may learn from: k of each class, from many people, by a seed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from primus_scale.counted import counted
from primus_scale.sample import hash64
from primus_scale.splits.audit import audit, refuse
from primus_scale.splits.spans import Spans

HELD_OUT_SHARE = 0.3  # of label people, to choose settings on
MOST_VALIDATION_WINDOWS = 600  # of held-out people
MOST_SHOWN = 8  # people in a message
HOLD_OUT_TRIALS = 100  # random choices of people; then as few people as possible are held out

Labels = int | Literal["all"]  # k, the labelled windows of each class


@dataclass(frozen=True)
class LabelledWindows:
    """Windows with labels, of the label people or of the test people.

    imu ``(n, C, T)`` float32 in SI units at ``rate_hz``; label ``(n,)`` int64 ids into the names
    ``classes``; person and session ``(n,)``: names of those of each window.
    """

    imu: torch.Tensor
    label: np.ndarray
    person: np.ndarray
    session: np.ndarray
    classes: tuple[str, ...]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.label)

    @property
    def people(self) -> list[str]:
        """Everyone with a window here, sorted."""
        return sorted({str(person) for person in self.person})


def check_sides(
    label: LabelledWindows, test: LabelledWindows, may_share: Collection[str] = ()
) -> None:
    """Raise ValueError where the two sides cannot make a few-shot task.

    No person may be on both sides, unless ``may_share`` holds ``people``.
    """
    for name, side in (("label/", label), ("test/", test)):
        if not len(side):
            raise ValueError(
                f"{name} holds no window with a label; write it from recordings that have labels"
            )
        if bad := int((~torch.isfinite(side.imu).flatten(1).all(1)).sum()):
            raise ValueError(
                f"{name}: {bad} of {len(side)} windows hold NaN or infinity; leave them out"
            )
    refuse(audit(Spans("label/", label.person), Spans("test/", test.person)), may_share)
    _check_choice(label)
    if label.classes != test.classes:
        raise ValueError(
            f"label/ names the classes {label.classes}, test/ {test.classes}; write both with the "
            "same list of labels"
        )
    if label.rate_hz != test.rate_hz or label.imu.shape[1:] != test.imu.shape[1:]:
        raise ValueError(
            f"windows of label/ are {tuple(label.imu.shape[1:])} at {label.rate_hz:g} Hz, those of "
            f"test/ {tuple(test.imu.shape[1:])} at {test.rate_hz:g} Hz; write both alike"
        )


def _check_choice(label: LabelledWindows) -> None:
    """Raise ValueError where settings cannot be compared on any held-out people of label/."""
    if len(label.people) < 2:
        raise ValueError(
            "label/ holds windows of one person only; settings are chosen on held-out people, "
            "so at least two are needed"
        )
    has = _classes_of_people(label)
    if (has.sum(axis=0) >= 2).sum() < 2:
        each = [
            f"{name} has {', '.join(np.array(label.classes)[row])}"
            for name, row in zip(label.people, has, strict=True)
        ]
        shown = "; ".join(each[:MOST_SHOWN]) + "; ..." * (len(each) > MOST_SHOWN)
        raise ValueError(
            "settings are chosen on held-out people of label/, which takes two classes with "
            f"windows of two people each, and there are not ({shown}); add windows of more "
            "classes for these people, or more people"
        )


def possible_labels(
    label: LabelledWindows, wanted: tuple[Labels, ...], report: Callable[[str], None]
) -> list[Labels]:
    """The numbers k of ``wanted`` for which each class has enough windows; reports the others.

    Classes that one person alone has are reported as well.
    """
    counts = np.bincount(label.label, minlength=len(label.classes))
    if counts.min() == 0:
        missing = [label.classes[i] for i in np.flatnonzero(counts == 0)]
        raise ValueError(
            f"label/ has no window of {', '.join(missing)}; add some, or drop the class"
        )
    possible = [k for k in wanted if k == "all" or k <= counts.min()]
    rarest = f"{label.classes[counts.argmin()]!r} has {counted(int(counts.min()), 'window')}"
    for k in [k for k in wanted if k not in possible]:
        report(f"k = {k} is left out: class {rarest}")
    people = _classes_of_people(label).sum(axis=0)
    if lone := [label.classes[i] for i in np.flatnonzero(people == 1)]:
        report(
            f"one person alone has windows of {', '.join(lone)} in label/: what is learnt of that "
            "may be the person; add people"
        )
    if not possible:
        raise ValueError(
            f"no value of k in {wanted} is possible: class {rarest}; ask for a smaller k"
        )
    return possible


def choose_windows(
    label: LabelledWindows, k: Labels, generator: np.random.Generator, rows: np.ndarray
) -> np.ndarray:
    """Choose k windows of each class out of ``rows``, from as many people as possible.

    In each round every person gives one window, in random order of people, until k are chosen.
    With an equal generator the choice for a smaller k is part of that for a larger k. From a class
    with fewer than k windows all are chosen.
    """
    if k == "all":
        return rows
    chosen = []
    for class_id in range(len(label.classes)):
        candidates = generator.permutation(rows[label.label[rows] == class_id])
        people = generator.permutation(label.people)
        round_number = np.empty(len(candidates), dtype=np.int64)
        person_number = np.empty(len(candidates), dtype=np.int64)
        for number, person in enumerate(people):
            of_person = np.flatnonzero(label.person[candidates].astype(str) == person)
            round_number[of_person] = np.arange(len(of_person))
            person_number[of_person] = number
        chosen.append(candidates[np.lexsort((person_number, round_number))][:k])
    return np.concatenate(chosen)


def hold_out_people(
    label: LabelledWindows, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of people to learn from, and rows of held-out people to choose settings on.

    A share ``HELD_OUT_SHARE`` of people, chosen at random, is held out. Both parts must have at
    least two classes in common, since accuracy on one class compares nothing. Where
    ``HOLD_OUT_TRIALS`` random choices do not give that, the fewest people that do are held out
    (``check_sides`` has checked that this is possible).
    """
    people = label.people
    person = np.searchsorted(people, label.person.astype(str))
    has = _classes_of_people(label)
    number = max(1, round(HELD_OUT_SHARE * len(people)))
    for _ in range(HOLD_OUT_TRIALS):
        held_out = generator.permutation(len(people))[:number]
        if _can_judge(has, held_out):
            break
    else:
        held_out = _fewest_held_out(has, generator)
    is_held_out = np.isin(person, held_out)
    validation = generator.permutation(np.flatnonzero(is_held_out))[:MOST_VALIDATION_WINDOWS]
    return np.flatnonzero(~is_held_out), validation


def _classes_of_people(label: LabelledWindows) -> np.ndarray:
    """Whether a person has windows of a class, ``(people, classes)`` bool."""
    has = np.zeros((len(label.people), len(label.classes)), dtype=np.bool_)
    has[np.searchsorted(label.people, label.person.astype(str)), label.label] = True
    return has


def _can_judge(has: np.ndarray, held_out: np.ndarray) -> bool:
    both = has[held_out].any(axis=0) & np.delete(has, held_out, axis=0).any(axis=0)
    return int(both.sum()) >= 2


def _fewest_held_out(has: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One or two people who have windows of two classes that others have too."""
    first, second = generator.permutation(np.flatnonzero(has.sum(axis=0) >= 2))[:2]
    shared = np.flatnonzero(has[:, first] & has[:, second])
    if len(shared):
        return generator.permutation(shared)[:1]
    one, other = (generator.permutation(np.flatnonzero(has[:, c]))[:1] for c in (first, second))
    return np.concatenate([one, other])


def keyed_generator(*key: object) -> np.random.Generator:
    """A random generator that depends only on ``key``."""
    return np.random.Generator(np.random.Philox(keyed_seed(*key)))


def keyed_seed(*key: object) -> int:
    """A seed of 31 bits that depends only on ``key``."""
    return hash64("/".join(str(part) for part in key)) & (2**31 - 1)
