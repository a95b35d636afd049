"""Search for the neighbours of a batch in the support set, and make the batch entries of the set.

All functions take the rows of one rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from primus_scale.config import NeighboursConfig, ObjectiveConfig, SupportConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.exchange import GlobalBatch, gather_batch
from primus_scale.objective.terms import weighted_terms
from primus_scale.sample import IMU, JOINT_MODALITIES, Batch
from primus_scale.support import (
    Exclusion,
    Neighbours,
    SupportEntries,
    SupportSet,
    SupportSpec,
)

# Searches that were started ahead, by modality of the queries. A call waits for the result.
PendingNeighbours = Mapping[str, Callable[[], Neighbours]]


def support_spec(
    objective: ObjectiveConfig, support: SupportConfig, dims: Mapping[str, int]
) -> SupportSpec | None:
    """The specification of a run's support set; None where the objective has no neighbour term.

    dims: width of the embeddings by modality, ``imu`` and the teachers'. The set keeps only the
    teacher embeddings that are searched or used as keys.
    """
    keys = {term.modality for term in weighted_terms(objective) if term.kind == "neighbour"}
    if not keys:
        return None
    query = objective.neighbours.query
    same_each_time = support.synchronous or support.home == "in_process"
    return SupportSpec(
        support.capacity,
        {m: dim for m, dim in dims.items() if m in keys | {IMU, query}},
        minimum_fill=support.minimum_fill,
        imu_answers="all" if keys == {IMU} else "multimodal",
        storage=support.storage,
        queried=(IMU, query),
        index=support.index,
        learning="on_time" if same_each_time else "when_ready",
    )


def describe_neighbours(config: NeighboursConfig) -> str | None:
    """A warning, for the start of a run, that windows may have no neighbours; None without need.

    It is for the user to check: the index does not say whether a session has several recordings.
    """
    if config.within != "session" or config.exclude != "recording":
        return None
    return (
        "neighbours of a window are of other recordings of its session: there are none where a "
        "session is one recording (neighbours/valid is then 0); set "
        "objective.neighbours.exclude=moment, or build the shards with --session-by person"
    )


@torch.no_grad()
def prefetch_neighbours(
    batch: Batch, support: SupportSet, config: NeighboursConfig
) -> PendingNeighbours:
    """Start the searches of those rows of a rank that query by a teacher's embedding.

    These searches do not need the encoder, so they can run while the step before computes. Give the
    result to ``find_neighbours`` with the same batch.
    """
    exclude = exclusion(batch, config)
    return {
        modality: support.start_search(queries[rows], config.k, exclude.at(rows), modality)
        for modality, queries, rows in _teacher_queries(batch, support, config)
    }


@torch.no_grad()
def find_neighbours(
    view0: Embeddings,
    batch: Batch,
    support: SupportSet,
    config: NeighboursConfig,
    pending: PendingNeighbours | None = None,
) -> Neighbours:
    """The neighbours of a rank's rows in the support set; call it before ``enqueue``.

    A row queries by its ``config.query`` embedding. A row without one queries by its IMU embedding
    (the self-supervision head of view 0), and its neighbours' video and text then supervise it.
    pending: the result of ``prefetch_neighbours`` for this batch; None starts all searches now.
    """
    pending = prefetch_neighbours(batch, support, config) if pending is None else pending
    found = Neighbours.none(len(batch), config.k, support.spec.dims, batch.imu.device)
    by_imu = torch.ones(len(batch), dtype=torch.bool, device=batch.imu.device)
    for modality, _, rows in _teacher_queries(batch, support, config):
        by_imu[rows] = False
        found.put(rows, pending[modality]())
    rows = by_imu.nonzero().squeeze(1)
    exclude = exclusion(batch, config).at(rows)
    found.put(rows, support.search(view0.ss[rows], config.k, exclude, IMU))
    return found


def exclusion(batch: Batch, config: NeighboursConfig) -> Exclusion:
    """Entries that cannot be neighbours of the batch's rows, by ``config.exclude`` and ``within``.

    ``exclude=session`` excludes the whole recording too: other devices in it have sessions of their
    own, but see the same scene.
    """
    # A negative time excludes the window itself only; see ``Origin.same_moment``.
    within_s = {"window": -1.0, "moment": batch.span_s}.get(config.exclude, math.inf)
    if config.within == "session":
        return Exclusion(batch.origin, within_s, session="other")
    return Exclusion(batch.origin, within_s, session="own" if config.exclude == "session" else None)


def _teacher_queries(
    batch: Batch, support: SupportSet, config: NeighboursConfig
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Modality ``config.query``, its embeddings ``(B, D)``, and the rows ``(n,)`` that have one.

    A list of one element, or of none where the batch or the set lacks the modality.
    """
    modality = config.query
    if modality not in batch.embeddings or modality not in support.spec.dims:
        return []
    rows = batch.present[modality].nonzero().squeeze(1)
    return [(modality, batch.embeddings[modality], rows)]


def support_entries(
    view0: Embeddings, batch: Batch, gathered: GlobalBatch | None = None
) -> SupportEntries:
    """The global batch as entries of a support set: the same, in the same order, on every rank.

    gathered: the result of ``gather_batch`` for ``batch``, where the caller has it already.
    """
    gathered = gathered or gather_batch(view0, batch)
    origin, vectors = gathered.origin, gathered.embeddings
    # Not the signal teacher's: its embeddings are neither keys nor queries.
    teachers = [name for name in JOINT_MODALITIES if name in vectors]
    return SupportEntries(
        uid=origin.uid,
        recording=origin.recording,
        session=origin.session,
        start_s=origin.start_s,
        embeddings={name: vectors[name] for name in (IMU, *teachers)},
        present={
            IMU: torch.ones_like(origin.uid, dtype=torch.bool),
            **{name: gathered.present[name] for name in teachers},
        },
    )
