"""The keys of each term of the objective, and which of them are the same or the query's own.

Shapes: B rows of this rank, N of the global batch, K keys of a row, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from primus_scale.config import NeighboursConfig
from primus_scale.distributed.collectives import gather
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import Pairs
from primus_scale.sample import Batch, Origin
from primus_scale.support import IMU, Exclusion, Neighbours


@dataclass(frozen=True)
class Positives:
    """The keys of a term: K positives ``(B, K, D)`` for each row, valid ``(B, K)`` bool.

    Rows may share a key, and would then be each other's false negatives. Teacher embeddings tell
    that by themselves (``of_teacher``). IMU embeddings do not, since those of an untrained encoder
    are all much alike; for them ``ids`` ``(B, K)`` int64 tell it, where it can happen. own: for
    each of the K, the pairs whose key was cut from the query's own moment.
    """

    keys: torch.Tensor
    valid: torch.Tensor
    of_teacher: bool
    ids: torch.Tensor | None = None
    own: Sequence[Pairs] | None = None


def direct_positives(modality: str, view1: Embeddings, batch: Batch) -> Positives:
    """View 1, or the teacher's embedding of the same window."""
    if modality == IMU:
        valid = torch.ones(len(batch), dtype=torch.bool, device=view1.ss.device)
        return Positives(view1.ss[:, None], valid[:, None], of_teacher=False)
    keys, valid = batch.embeddings[modality], batch.present[modality]
    return Positives(keys[:, None], valid[:, None], of_teacher=True)


def neighbour_positives(
    modality: str, neighbours: Neighbours, batch: Batch, config: NeighboursConfig
) -> Positives:
    """The K neighbours of each row, or the mean of them as its only key."""
    keys = neighbours.embeddings[modality]
    valid = neighbours.valid & neighbours.present[modality]
    joined = config.combine == "mean" and keys.shape[1] > 1
    ids = neighbours.uid
    own = _own_keys(batch, neighbours.origin, valid, config)
    if joined:
        keys = functional.normalize((keys * valid[:, :, None]).sum(1, keepdim=True), dim=2)
        ids = hash_sets(ids, valid)
        own = _any_of(own)
        valid = valid.any(1, keepdim=True)
    of_teacher = modality != IMU
    return Positives(keys, valid, of_teacher, ids=None if of_teacher else ids, own=own)


def hash_sets(uid: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """A number for each row's valid uids, whatever their order: ``(B, K)`` -> ``(B, 1)`` int64.

    Each uid is hashed before they are added up, since 1 + 4 is 2 + 3: by the function at the end
    of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which makes every bit depend on all.
    """
    mixed = uid - 0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        # The shift of signed numbers fills up with the sign, where zeros are wanted.
        shifted = (mixed >> shift) & ((1 << (64 - shift)) - 1)
        mixed = (mixed ^ shifted) * factor
    return (mixed * valid).sum(1, keepdim=True)


def _own_keys(
    batch: Batch, keys: Origin, valid: torch.Tensor, config: NeighboursConfig
) -> list[Pairs]:
    """For each of the K, where a key is the query's window of the past, or cut from its moment.

    keys and valid ``(B, K)``: the neighbours of the rank's rows.
    """
    within_s = -1.0 if config.exclude == "window" else batch.span_s
    all_queries, all_keys, all_valid = (
        _gather_origins(batch.origin),
        _gather_origins(keys),
        gather(valid),
    )
    pairs = []
    for k in range(valid.shape[1]):
        local, everyones = (Origin(*(column[:, k] for column in each)) for each in (keys, all_keys))
        of_queries = Exclusion(batch.origin, within_s).covers(everyones) & all_valid[:, k]
        of_keys = Exclusion(local, within_s).covers(all_queries) & valid[:, k, None]
        pairs.append(Pairs(of_queries, of_keys))
    return pairs


def _any_of(pairs: Sequence[Pairs]) -> list[Pairs]:
    """The pairs that are in one of the given ones at least, as the only ones."""
    return [Pairs(*(torch.stack(masks).any(0) for masks in zip(*pairs, strict=True)))]


def _gather_origins(origin: Origin) -> Origin:
    """Those of all ranks, in one message."""
    columns = origin.uid, origin.recording, origin.start_s.view(torch.int64)
    uid, recording, start = gather(torch.stack(columns, dim=-1)).unbind(-1)
    return Origin(uid, recording, start.contiguous().view(torch.float64))
