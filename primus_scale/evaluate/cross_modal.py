"""Retrieval between IMU and text or video: how well a window finds its own, and is found.

Each window has an embedding in a teacher's space. With it, the window's own text or pictures are
searched among those of all windows, and the other way round. Windows with equal texts or pictures
are correct answers to each other. ``monitor.retrieval`` measures recall@1 in the same way during a
training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.counted import counted
from primus_scale.data.reader import LoadedWindows, load_windows
from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.retrieval_examples import find_examples
from primus_scale.evaluate.statistics import people_interval, share_correct
from primus_scale.evaluate.teacher_space import embed_in_space, teacher_of
from primus_scale.monitor.measures import chance_of_recall, group_equal, ranks_of_own
from primus_scale.sample import JOINT_MODALITIES
from primus_scale.teachers import embed_windows

RECALL_AT = (1, 5, 10)


def run_retrieval(
    encoder: nn.Module,
    card: EncoderCard,
    urls: Sequence[str],
    report: Callable[[str], None] = print,
    *,
    split: int = 0,
    pretraining_seed: int = 0,
) -> dict[str, Any]:
    """Retrieval among the windows of packed or window shards at ``urls``, for JSON.

    Keys: ``data``, the urls; ``split``, ``pretraining_seed``; ``directions``, by a name such as
    ``imu_to_text`` what ``measure_direction`` returns; ``examples`` by modality
    (``retrieval_examples``). Frames and texts of window shards are
    embedded by the encoder's teachers. Modalities that encoder and windows do not both have are
    reported. Raises ValueError where that leaves none, or windows or embeddings are not those that
    the encoder takes.
    """
    loaded = load_windows(list(urls))
    name = ", ".join(urls)
    card.check_windows(loaded.shard_set.index.window_format, name)
    people = np.array([f"{meta.dataset}/{meta.person}" for meta in loaded.metas])
    directions: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    lacking = []
    for modality in JOINT_MODALITIES:
        if modality not in card.teachers:
            lacking.append(f"the encoder has no head for {modality}")
            continue
        theirs, present = _teacher_embeddings(loaded, card, modality, name, encoder)
        rows = present.nonzero()[:, 0]
        if len(rows) < 2:
            lacking.append(f"{name} has {counted(len(rows), 'window')} with {modality}")
            continue
        theirs = theirs[rows]
        ours = embed_in_space(encoder, loaded.imu[rows], modality)
        groups = group_equal(theirs, torch.arange(len(rows)))
        for direction, queries, keys in (
            (f"imu_to_{modality}", ours, theirs),
            (f"{modality}_to_imu", theirs, ours),
        ):
            directions[direction] = measure_direction(queries, keys, groups, people[rows.numpy()])
        if found := find_examples(loaded, rows.numpy(), ours, theirs, groups):
            examples[modality] = found
    if not directions:
        raise ValueError(
            f"few_shot.retrieval: nothing to find: {'; '.join(lacking)}; give an encoder with "
            "such a head and shards with its modality, or leave few_shot.retrieval empty"
        )
    for reason in lacking:
        report(f"retrieval: {reason}")
    marks = {"split": split, "pretraining_seed": pretraining_seed}
    return {"data": list(urls), **marks, "directions": directions, "examples": examples}


def measure_direction(
    queries: torch.Tensor, keys: torch.Tensor, groups: torch.Tensor, people: np.ndarray
) -> dict[str, Any]:
    """How well each of n queries finds its own key among the n keys, both ``(n, D)``.

    groups ``(n,)``: keys of one group are equal (``monitor.measures.group_equal``). people
    ``(n,)``: whose window asks. Keys: ``recall`` {n: interval over people}, with ``chance``, the
    recall of a random order; ``median_rank`` and that of a random order, ``median_rank_chance``;
    ``windows``.
    """
    own = torch.arange(len(queries))
    ranks = ranks_of_own(queries, keys, own, groups).numpy()
    names, person = np.unique(people, return_inverse=True)
    total = np.bincount(person).astype(np.float64)
    recall = {}
    for at in RECALL_AT:
        correct = np.bincount(person, weights=ranks <= at)
        interval = people_interval(share_correct(correct, total), len(names), (0.0, 1.0))
        chance = float(chance_of_recall(groups, at))
        recall[str(at)] = {**interval.as_dict(), "chance": chance}
    return {
        "recall": recall,
        "median_rank": float(np.median(ranks)),
        "median_rank_chance": float(chance_of_median(groups)),
        "windows": len(queries),
    }


def chance_of_median(groups: torch.Tensor) -> int:
    """The median place of the best correct key in a random order: the first with recall >= 1/2."""
    low, high = 1, len(groups)
    while low < high:
        middle = (low + high) // 2
        if chance_of_recall(groups, middle) >= 0.5 - 1e-12:
            high = middle
        else:
            low = middle + 1
    return low


def _teacher_embeddings(
    loaded: LoadedWindows, card: EncoderCard, modality: str, name: str, encoder: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings ``(N, D)`` and the mask ``(N,)`` of windows that have one, on the CPU."""
    batch, spaces = loaded.batch, loaded.shard_set.teachers
    items = {"video": batch.frames, "text": batch.texts}[modality]
    if items is not None:  # window shards
        if not any(items):
            return torch.zeros(len(loaded), 1), torch.zeros(len(loaded), dtype=torch.bool)
        device = next(encoder.parameters()).device
        embeddings, present = embed_windows(teacher_of(card, modality, device), items)
        return embeddings.cpu(), present.cpu()
    if modality not in spaces:
        return torch.zeros(len(loaded), 1), torch.zeros(len(loaded), dtype=torch.bool)
    if (found := spaces[modality].key) != (wanted := card.teachers[modality].key):
        raise ValueError(
            f"{name}: {modality} embeddings are of {spaces[modality].teacher!r} (key {found}), and "
            f"the encoder's head is of {card.teachers[modality].teacher!r} (key {wanted}); embed "
            "these shards with that teacher: primus-scale shards embed"
        )
    return batch.embeddings[modality], batch.present[modality]
