"""The positive keys of each term, and which other keys must not count as negatives of a row.

Shapes: N rows of the global batch, K keys of a row, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from primus_scale.config import NeighboursConfig
from primus_scale.distributed.collectives import gather_with_grad
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import SameMoment, unit_rows
from primus_scale.objective.exchange import GlobalBatch
from primus_scale.sample import IMU, Batch, Origin


@dataclass(frozen=True)
class Positives:
    """One positive key for each row of the global batch.

    keys ``(N, D)``, of unit length. valid ``(N,)`` bool: the row has that key. of_teacher: whether
    a teacher embedded the keys. ids ``(N,)`` int64: equal for equal keys; None where no two rows
    can have the same key, and for a teacher's keys. same_moment: pairs whose key is from the same
    moment as the query; None where there are none.

    Two rows may have the same key. Each would then be a false negative of the other. The loss finds
    equal keys of a teacher by their cosine. IMU embeddings of an untrained encoder are all very
    similar, so for them ``ids`` must say which keys are equal.
    """

    keys: torch.Tensor
    valid: torch.Tensor
    of_teacher: bool
    ids: torch.Tensor | None = None
    same_moment: SameMoment | None = None


def direct_positives(modality: str, view1: Embeddings, gathered: GlobalBatch) -> Positives:
    """The key of each row: view 1, with gradient, or the teacher's embedding of the same window."""
    if modality == IMU:
        keys = gather_with_grad(unit_rows(view1.ss))
        valid = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        return Positives(keys, valid, of_teacher=False)
    return Positives(gathered.embeddings[modality], gathered.present[modality], of_teacher=True)


def neighbour_positives(
    modality: str, gathered: GlobalBatch, batch: Batch, config: NeighboursConfig
) -> list[Positives]:
    """The keys from a row's K neighbours: one of each, or one that is their mean (``combine``).

    A mean is from the query's moment if one of its neighbours is. With ``exclude=window`` only the
    window itself counts as of the same moment: an earlier epoch may have added it to the set.
    """
    neighbours = gathered.neighbours
    assert neighbours is not None, "a neighbour term has weight, but there are no neighbours"
    within_s = -1.0 if config.exclude == "window" else batch.span_s
    valid, keys = neighbours.valid[modality], neighbours.keys[modality]
    k = valid.shape[1]
    groups = [slice(None)] if config.combine == "mean" else [slice(i, i + 1) for i in range(k)]
    positives = []
    for number, group in enumerate(groups):
        origin = Origin(*(column[:, group] for column in neighbours.origin))
        valid_of_key = valid[:, group]
        ids = None
        if modality == IMU:
            one = origin.uid.shape[1] == 1
            ids = origin.uid[:, 0] if one else hash_sets(origin.uid, valid_of_key)[:, 0]
        positives.append(
            Positives(
                keys[:, number],
                valid_of_key.any(1),
                of_teacher=modality != IMU,
                ids=ids,
                same_moment=SameMoment(batch.origin, origin, valid_of_key, within_s),
            )
        )
    return positives


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
