"""Gather what the loss and the support set need of the rows of all ranks, in two messages.

One message has identities and flags (int64), the other unit vectors without gradient (float32).
Keys with a gradient are not among them: the terms that use them gather them, since their gradient
must return to the rank that they are from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    origin ``(N, K)``. valid ``(N, K)`` bool by modality: the row has that neighbour, and the
    neighbour has that modality. keys: by modality of the neighbour terms, of unit length: the
    neighbours' embeddings ``(N, K, D)``, or the mean of the valid ones ``(N, 1, D)``, see
    ``objective.neighbours.combine``.
    """

    origin: Origin
    valid: dict[str, torch.Tensor]
    keys: dict[str, torch.Tensor]


@dataclass(frozen=True)
class GlobalBatch:
    """The N rows of the global batch, in rank order, the same on every rank.

    origin ``(N,)``; present ``(N,)`` bool by teacher modality. embeddings ``(N, D)`` by modality,
    of unit length, without gradient: the teachers', and as ``imu`` those of view 0 that the support
    set stores. Only those that the objective uses are there.
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

    neighbours: of the same rows. Without them, what only the support set needs is not gathered.
    config: of the objective. Without it, only what the support set needs is gathered.
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
        keys = {name: _unit_keys(neighbours, name, valid[name], mean) for name in sorted(used)}
    numbers = gather_columns(numbers)
    floats = gather_columns([*vectors.values(), *keys.values()])
    global_neighbours = None
    if neighbours is not None:
        global_neighbours = GlobalNeighbours(
            origin=_origin(numbers[5:9]),
            valid=_unpack(numbers[9], neighbours.present),
            keys=dict(zip(keys, floats[len(vectors) :], strict=True)),
        )
    return GlobalBatch(
        origin=_origin(numbers[:4]),
        present=_unpack(numbers[4], batch.present),
        embeddings=dict(zip(vectors, floats, strict=False)),
        neighbours=global_neighbours,
    )


def _unit_keys(
    neighbours: Neighbours, modality: str, valid: torch.Tensor, mean: bool
) -> torch.Tensor:
    """The neighbours' embeddings ``(B, K, D)``, or with ``mean`` their mean ``(B, 1, D)``."""
    keys = neighbours.embeddings[modality]
    if mean and keys.shape[1] > 1:
        keys = (keys * valid[:, :, None]).sum(1, keepdim=True)
    return unit_rows(keys)


def _numbers(origin: Origin) -> list[torch.Tensor]:
    """The columns of an origin as int64; the float64 start times keep their bits."""
    return list(origin._replace(start_s=origin.start_s.view(torch.int64)))


def _origin(numbers: Sequence[torch.Tensor]) -> Origin:
    """The origin whose ``_numbers`` are given."""
    origin = Origin(*(column.contiguous() for column in numbers))
    return origin._replace(start_s=origin.start_s.view(torch.float64))


def _pack(flags: Mapping[str, torch.Tensor], uid: torch.Tensor) -> torch.Tensor:
    """Flags by name as int64 numbers in the shape of ``uid``: a bit for each name, by sorted name.

    Without any flag the numbers are 0.
    """
    packed = torch.zeros_like(uid)
    for bit, name in enumerate(sorted(flags)):
        packed |= flags[name].long() << bit
    return packed


def _unpack(packed: torch.Tensor, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The flags that ``_pack`` packed."""
    return {name: (packed >> bit & 1).bool() for bit, name in enumerate(sorted(names))}
