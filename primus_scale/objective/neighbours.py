"""Neighbours of a batch in the support set, and what the batch adds to it.

All functions take the local rows of a rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from primus_scale.config import NeighboursConfig, ObjectiveConfig, SupportConfig
from primus_scale.distributed.collectives import gather
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.terms import weighted_terms
from primus_scale.sample import Batch
from primus_scale.support import (
    IMU,
    Exclusion,
    Neighbours,
    SupportEntries,
    SupportSet,
    SupportSpec,
)

# The answers to questions asked ahead, by modality; see ``ask_ahead``.
Asked = Mapping[str, Callable[[], Neighbours]]


def support_spec(
    objective: ObjectiveConfig, support: SupportConfig, dims: Mapping[str, int]
) -> SupportSpec | None:
    """What the support set of a run is, or None where the objective has no neighbour term.

    dims: width of the embeddings by modality, ``imu`` and the teachers'. Of the teachers' only
    what is searched or used as a key is kept.
    """
    keys = {term.keys for term in weighted_terms(objective) if term.kind == "neighbour"}
    if not keys:
        return None
    query = objective.neighbours.query
    return SupportSpec(
        support.capacity,
        {m: dim for m, dim in dims.items() if m in keys | {IMU, query}},
        minimum_fill=support.minimum_fill,
        imu_answers="all" if keys == {IMU} else "multimodal",
        storage=support.storage,
        queried=(IMU, query),
        index=support.index,
        wait=support.synchronous or support.home == "in_process",
    )


@torch.no_grad()
def ask_ahead(batch: Batch, support: SupportSet, config: NeighboursConfig) -> Asked:
    """Begin the searches for a rank's rows that need no encoder: teachers are frozen.

    Give what comes of it to ``find_neighbours`` when the batch's turn has come. Every row of the
    same batch must stand as it did.
    """
    exclude = exclusion(batch, config)
    return {
        modality: support.ask(queries[rows], config.k, exclude.at(rows), modality)
        for modality, queries, rows in _teacher_questions(batch, support, config)
    }


@torch.no_grad()
def find_neighbours(
    view0: Embeddings,
    batch: Batch,
    support: SupportSet,
    config: NeighboursConfig,
    asked: Asked | None = None,
) -> Neighbours:
    """The neighbours of a rank's rows in the support set; call it before ``enqueue``.

    A row asks by its ``config.query`` embedding; one that lacks it asks by its IMU embedding (the
    self-supervision head of view 0), and its neighbours' video and text then supervise it.
    asked: what ``ask_ahead`` gave for this batch; otherwise all is asked now.
    """
    asked = ask_ahead(batch, support, config) if asked is None else asked
    found = Neighbours.none(len(batch), config.k, support.spec.dims, batch.imu.device)
    by_imu = torch.ones(len(batch), dtype=torch.bool, device=batch.imu.device)
    for modality, _, rows in _teacher_questions(batch, support, config):
        by_imu[rows] = False
        found.put(rows, asked[modality]())
    rows = by_imu.nonzero().squeeze(1)
    exclude = exclusion(batch, config).at(rows)
    found.put(rows, support.search(view0.ss[rows], config.k, exclude, IMU))
    return found


def exclusion(batch: Batch, config: NeighboursConfig) -> Exclusion:
    """Which entries are no neighbours of the batch's rows, as ``config.exclude`` says."""
    within_s = {"window": -1.0, "moment": batch.span_s, "recording": math.inf}
    return Exclusion(batch.origin, within_s[config.exclude])


def _teacher_questions(
    batch: Batch, support: SupportSet, config: NeighboursConfig
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Modality, its embeddings ``(B, D)``, and the numbers of the rows that ask by it."""
    modality = config.query
    if modality not in batch.embeddings or modality not in support.spec.dims:
        return []
    rows = batch.present[modality].nonzero().squeeze(1)
    return [(modality, batch.embeddings[modality], rows)]


@torch.no_grad()
def support_entries(view0: Embeddings, batch: Batch) -> SupportEntries:
    """What the global batch adds to a support set: the same entries, in order, on every rank."""
    uid = gather(batch.uid)
    return SupportEntries(
        uid=uid,
        recording=gather(batch.recording),
        start_s=gather(batch.start_s),
        embeddings={
            IMU: gather(view0.ss),
            **{name: gather(rows) for name, rows in batch.embeddings.items()},
        },
        present={
            IMU: torch.ones_like(uid, dtype=torch.bool),
            **{name: gather(rows) for name, rows in batch.present.items()},
        },
    )
