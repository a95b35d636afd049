"""The positive keys of each term, and which other keys are no negatives of a row.

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
from primus_scale.sample import IMU, Batch, Origin
from primus_scale.support import Exclusion, Neighbours


@dataclass(frozen=True)
class Positives:
    """The positive keys of a term.

    keys ``(B, K, D)``: K for each row. valid ``(B, K)`` bool: the row has that key. of_teacher:
    the keys are embeddings by a teacher. ids ``(B, K)`` int64: equal for equal keys; None where no
    two rows can have the same key, or where ``of_teacher``. same_moment: for each of the K, the
    pairs whose key is from the same moment as the query; None where there are none.

    Rows may have the same key, and would then be each other's false negatives. Equal teacher
    embeddings are found by their cosine. IMU embeddings need ``ids``, since those of an untrained
    encoder are all very similar.
    """

    keys: torch.Tensor
    valid: torch.Tensor
    of_teacher: bool
    ids: torch.Tensor | None = None
    same_moment: Sequence[Pairs] | None = None


def direct_positives(modality: str, view1: Embeddings, batch: Batch) -> Positives:
    """One key a row: view 1, or the teacher's embedding of the same window."""
    if modality == IMU:
        valid = torch.ones(len(batch), dtype=torch.bool, device=view1.ss.device)
        return Positives(view1.ss[:, None], valid[:, None], of_teacher=False)
    keys, valid = batch.embeddings[modality], batch.present[modality]
    return Positives(keys[:, None], valid[:, None], of_teacher=True)


def neighbour_positives(
    modality: str, neighbours: Neighbours, batch: Batch, config: NeighboursConfig
) -> Positives:
    """The embeddings of a row's K neighbours, or their mean as its only key (``combine``)."""
    keys = neighbours.embeddings[modality]
    valid = neighbours.valid & neighbours.present[modality]
    ids = neighbours.uid
    same_moment = _same_moment_pairs(batch, neighbours.origin, valid, config)
    if config.combine == "mean" and keys.shape[1] > 1:
        keys = functional.normalize((keys * valid[:, :, None]).sum(1, keepdim=True), dim=2)
        ids = hash_sets(ids, valid)
        same_moment = _any_of(same_moment)
        valid = valid.any(1, keepdim=True)
    of_teacher = modality != IMU
    ids_if_needed = None if of_teacher else ids
    return Positives(keys, valid, of_teacher, ids_if_needed, same_moment)


def hash_sets(uid: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """A hash of each row's set of valid uids: ``(B, K)`` -> ``(B, 1)`` int64.

    It is the sum of the uids' hashes, so their order does not matter. Sums of the uids themselves
    would collide (1 + 4 = 2 + 3). The hash is the output function of SplitMix64 (Steele, Lea and
    Flood, OOPSLA 2014).
    """
    mixed = uid - 0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        # The shift of a signed number inserts copies of the sign bit; SplitMix64 needs zeros.
        shifted = (mixed >> shift) & ((1 << (64 - shift)) - 1)
        mixed = (mixed ^ shifted) * factor
    return (mixed * valid).sum(1, keepdim=True)


def _same_moment_pairs(
    batch: Batch, keys: Origin, valid: torch.Tensor, config: NeighboursConfig
) -> list[Pairs]:
    """For each of the K, the pairs whose key is the query's window itself, or of its moment.

    keys and valid ``(B, K)``: the neighbours of the rank's rows. With ``exclude=window`` only the
    window itself counts, as an entry that an earlier epoch added.
    """
    within_s = -1.0 if config.exclude == "window" else batch.span_s
    all_queries, all_keys = gather_origins(batch.origin), gather_origins(keys)
    all_valid = gather(valid)
    pairs = []
    for k in range(valid.shape[1]):
        local_k, all_k = (Origin(*(column[:, k] for column in each)) for each in (keys, all_keys))
        of_queries = Exclusion(batch.origin, within_s).covers(all_k) & all_valid[:, k]
        of_keys = Exclusion(local_k, within_s).covers(all_queries) & valid[:, k, None]
        pairs.append(Pairs(of_queries, of_keys))
    return pairs


def _any_of(pairs: Sequence[Pairs]) -> list[Pairs]:
    """One element: the pairs that are in at least one element of ``pairs``."""
    return [Pairs(*(torch.stack(masks).any(0) for masks in zip(*pairs, strict=True)))]


def gather_origins(origin: Origin) -> Origin:
    """The origins of all ranks' rows, gathered in one message."""
    columns = origin._replace(start_s=origin.start_s.view(torch.int64))
    gathered = Origin(*gather(torch.stack(columns, dim=-1)).unbind(-1))
    return gathered._replace(start_s=gathered.start_s.contiguous().view(torch.float64))
