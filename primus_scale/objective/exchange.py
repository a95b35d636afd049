"""What the ranks tell each other of a batch before its loss: each tensor once, in two messages.

One message has identities and flags (int64), the other unit vectors that have no gradient
(float32). Learned keys, whose gradient returns to the rank that they are from, are gathered by the
terms that use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.distributed.collectives import gather_columns
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import unit_rows
from primus_scale.objective.terms import is_regression, weighted_terms
from primus_scale.sample import IMU, JOINT_MODALITIES, Batch, Origin
from primus_scale.support import Neighbours


@dataclass(frozen=True)
class GlobalNeighbours:
    """The neighbours of the N rows of the global batch.

    origin ``(N, K)``. valid ``(N, K)`` bool by modality: the row has that neighbour, with that
    modality. keys ``(N, K, D)`` by modality of the neighbour terms, of unit length: the neighbours'
    embeddings, or ``(N, 1, D)`` the mean of the valid ones (``objective.neighbours.combine``).
    """

    origin: Origin
    valid: dict[str, torch.Tensor]
    keys: dict[str, torch.Tensor]


@dataclass(frozen=True)
class GlobalBatch:
    """The N rows of the global batch, in rank order, the same on every rank.

    origin ``(N,)``; present ``(N,)`` bool by teacher modality. embeddings ``(N, D)`` of unit length
    by modality, without gradient: the teachers', and ``imu``, those of view 0 that the support set
    stores; only those that the objective uses.
    """

    origin: Origin
    present: dict[str, torch.Tensor]
    embeddings: dict[str, torch.Tensor]
    neighbours: GlobalNeighbours | None


@torch.no_grad()
def gather_batch(
    view0: Embeddings,
    batch: Batch,
    neighbours: Neighbours | None = None,
    config: ObjectiveConfig | None = None,
) -> GlobalBatch:
    """The global batch of a rank's rows; every rank calls this at the same time.

    neighbours: of the same rows; None without a support set, whose entries are then not gathered.
    config: the objective that is to be computed; None where the entries only are needed.
    """
    terms = [] if config is None else list(weighted_terms(config))
    contrasted = [t for t in terms if config is not None and not is_regression(t, config)]
    teachers = {t.modality for t in contrasted if t.kind == "direct" and t.modality != IMU}
    vectors = {}
    if neighbours is not None or config is None:
        teachers |= set(JOINT_MODALITIES) & set(batch.embeddings)
        vectors[IMU] = unit_rows(view0.ss)
    vectors |= {name: unit_rows(batch.embeddings[name]) for name in sorted(teachers)}
    numbers = [*_numbers(batch.origin), _pack(batch.present, batch.origin.uid)]
    keys = {}
    if neighbours is not None:
        valid = {name: neighbours.valid & there for name, there in neighbours.present.items()}
        numbers += [*_numbers(neighbours.origin), _pack(valid, neighbours.origin.uid)]
        used = {term.modality for term in contrasted if term.kind == "neighbour"}
        mean = config is not None and config.neighbours.combine == "mean"
        keys = {name: _keys_of(neighbours, name, valid[name], mean) for name in sorted(used)}
    numbers = gather_columns(numbers)
    floats = gather_columns([*vectors.values(), *keys.values()])
    return GlobalBatch(
        origin=_origin(numbers[:4]),
        present=_unpack(numbers[4], batch.present),
        embeddings=dict(zip(vectors, floats, strict=False)),
        neighbours=None
        if neighbours is None
        else GlobalNeighbours(
            origin=_origin(numbers[5:9]),
            valid=_unpack(numbers[9], neighbours.present),
            keys=dict(zip(keys, floats[len(vectors) :], strict=True)),
        ),
    )


def _keys_of(
    neighbours: Neighbours, modality: str, valid: torch.Tensor, mean: bool
) -> torch.Tensor:
    keys = neighbours.embeddings[modality]
    if mean and keys.shape[1] > 1:
        keys = (keys * valid[:, :, None]).sum(1, keepdim=True)
    return unit_rows(keys)


def _numbers(origin: Origin) -> list[torch.Tensor]:
    """The columns of an origin as int64, of the same bits."""
    return list(origin._replace(start_s=origin.start_s.view(torch.int64)))


def _origin(numbers: Sequence[torch.Tensor]) -> Origin:
    origin = Origin(*(column.contiguous() for column in numbers))
    return origin._replace(start_s=origin.start_s.view(torch.float64))


def _pack(flags: Mapping[str, torch.Tensor], uid: torch.Tensor) -> torch.Tensor:
    """Flags of the shape of ``uid`` as the bits of int64 numbers, in the order of their names."""
    packed = torch.zeros_like(uid)
    for bit, name in enumerate(sorted(flags)):
        packed |= flags[name].long() << bit
    return packed


def _unpack(packed: torch.Tensor, names: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: (packed >> bit & 1).bool() for bit, name in enumerate(sorted(names))}
