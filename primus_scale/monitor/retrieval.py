"""Retrieval between IMU and teachers on held-out windows: recall@1, and that of random answers.

Each rank computes a part of the windows, and no rank holds a table of all pairs: memory grows with
the number of windows, not with its square. Shapes: V windows, D width of a modality's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from primus_scale.distributed.collectives import gather, rank, sum_over_ranks, world_size
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor.measures import chance_of_recall, group_equal, recall_at_1
from primus_scale.sample import TEACHER_MODALITIES


class Retrieval(NamedTuple):
    """Recall@1 by name, such as ``imu_to_video``, and that of random answers, by the same names."""

    recall: dict[str, float]
    chance: dict[str, float]


@torch.no_grad()
def measure_retrieval(
    encode: Callable[[torch.Tensor], Embeddings],
    imu: torch.Tensor,
    embeddings: Mapping[str, torch.Tensor],
    present: Mapping[str, torch.Tensor],
    at_once: int,
) -> Retrieval:
    """Recall@1 between IMU and each teacher with a head; the same answer on every rank.

    imu ``(V, C, T)``; embeddings ``(V, D)`` and present ``(V,)`` bool by modality. All ranks call
    this at the same time with the same arguments: a model that is partitioned over ranks (ZeRO
    stage 3) can compute only on all ranks together. encode: maps ``(B, C, T)`` to Embeddings, B at
    most ``at_once``. A window with an embedding equal to the right one (the same narration) is a
    correct answer too.
    """
    own = _share(len(imu))
    parts = [encode(imu[rows]).mm for rows in own.split(at_once)]
    result = Retrieval({}, {})
    heads = parts[0].keys() & embeddings.keys()
    for modality in (name for name in TEACHER_MODALITIES if name in heads):
        rows = present[modality]
        if int(rows.sum()) < 2:
            continue  # a single window would always find itself
        ours = _join(torch.cat([part[modality].float() for part in parts]), len(imu))
        ours = ours[rows.to(ours.device)]
        theirs = embeddings[modality][rows].to(ours)
        mine = _share(len(ours)).to(ours.device)
        groups = _join(group_equal(theirs, mine), len(ours))
        chance = float(chance_of_recall(groups))
        for name, queries, keys in (
            (f"imu_to_{modality}", ours, theirs),
            (f"{modality}_to_imu", theirs, ours),
        ):
            result.recall[name] = _recall(queries, keys, groups)
            result.chance[name] = chance
    return result


def describe_retrieval(found: Retrieval, windows: int) -> str:
    """One line: each recall with its chance, in percent of ``windows``."""
    percents = {name: (100 * x, 100 * found.chance[name]) for name, x in found.recall.items()}
    told = [
        f"{name.replace('_to_', ' to ')} {recall:.2f} %, chance {chance:.2f} %"
        for name, (recall, chance) in percents.items()
    ]
    return f"recall@1 among {windows:,} held-out windows: {'; '.join(told)}"


def _recall(queries: torch.Tensor, keys: torch.Tensor, groups: torch.Tensor) -> float:
    """Recall@1 of all queries; each rank computes a part of them."""
    size = -(-len(queries) // world_size())
    own = torch.arange(len(queries), device=queries.device)[rank() * size : (rank() + 1) * size]
    share = recall_at_1(queries[own], keys, own, groups) if len(own) else queries.new_zeros(())
    return float(sum_over_ranks(share.double() * len(own)) / len(queries))


def _share(count: int) -> torch.Tensor:
    """The rank's rows of ``count`` rows; equally many on every rank, so the last may repeat."""
    size = -(-count // world_size())
    return (torch.arange(size) + rank() * size).clamp(max=count - 1)


def _join(share: torch.Tensor, count: int) -> torch.Tensor:
    """All ``count`` rows, from the parts of the ranks, which are divided by ``_share``."""
    return gather(share)[:count]
