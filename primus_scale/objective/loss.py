"""The PRIMUS objective: six contrastive terms over views, teachers and nearest neighbours.

    imu_video, imu_text               view 0 against the teachers' embeddings of the same window
    imu_imu                           view 0 against view 1
    neighbour_video, neighbour_text   view 0 against the teachers' embeddings of its neighbours
    neighbour_imu                     view 0 against the stored IMU embeddings of its neighbours

Source: arXiv 2411.15127, section 3. A step is ``find_neighbours`` -> ``primus_loss`` -> backward
-> ``support.enqueue(support_entries(...))``. All functions take the local rows of a rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from primus_scale.config import Config, NeighboursConfig, ObjectiveConfig, TemperatureConfig
from primus_scale.distributed.collectives import gather, sum_over_ranks
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import Contrast, GlobalRows, contrastive, gather_rows
from primus_scale.objective.positives import Positives, direct_positives, neighbour_positives
from primus_scale.sample import Batch
from primus_scale.support import (
    IMU,
    Exclusion,
    Neighbours,
    SupportEntries,
    SupportSet,
    SupportSpec,
)

FAMILIES = ("mm", "ss")  # of terms: multimodal and self-supervised, each with its temperature
DIRECT_TERMS = ("imu_video", "imu_text", "imu_imu")
NEIGHBOUR_TERMS = ("neighbour_video", "neighbour_text", "neighbour_imu")
TERMS = DIRECT_TERMS + NEIGHBOUR_TERMS

# Teacher embeddings are stored as float16: the same frame or sentence, embedded in two batches,
# may differ in the last bits.
SAME_KEY_COSINE = 1 - 1e-5


class ModelOutput(NamedTuple):
    """Embeddings of the windows given, and the temperatures by family, 0-d float32.

    A named tuple, so that DeepSpeed's ZeRO-3 hooks find the tensors.
    """

    embeddings: Embeddings
    temperatures: dict[str, torch.Tensor]


class PrimusModel(nn.Module):
    """All that is trained: the encoder and the temperatures of the loss."""

    def __init__(self, encoder: nn.Module, temperature: TemperatureConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperatures = Temperatures(temperature)

    def forward(self, imu: torch.Tensor) -> ModelOutput:
        """Embed imu ``(B, C, T)``; both views of a batch are given stacked, view 0 first."""
        return ModelOutput(self.encoder(imu), self.temperatures())


class Temperatures(nn.Module):
    """A temperature for each family of terms; see ``TemperatureConfig`` for the modes.

    ``value`` ``(2,)`` holds the temperatures in the order of FAMILIES: their logarithm in mode
    ``log``, themselves in the other modes. It needs no weight decay.
    """

    def __init__(self, config: TemperatureConfig) -> None:
        super().__init__()
        self.config = config
        initial = math.log(config.initial) if config.mode == "log" else config.initial
        value = torch.full((len(FAMILIES),), initial)
        self.value = nn.Parameter(value, requires_grad=config.mode != "fixed")

    def forward(self) -> dict[str, torch.Tensor]:
        """The temperatures by family, 0-d float32."""
        value = self.value.float()
        if self.config.mode == "log":
            low, high = math.log(self.config.minimum), math.log(self.config.maximum)
            value = _Clamp.apply(value, low, high).exp()
        return dict(zip(FAMILIES, value.unbind(), strict=True))


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient stays alive where it leads back between the bounds.

    An ordinary clamp has no gradient outside, where a step of the optimiser may well end: the
    temperature would stay there for good. Which way the gradient leads is that of all ranks
    together, so that every number of ranks decides alike.
    """

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(value < low, value > high)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        below, above = ctx.saved_tensors
        total = sum_over_ranks(grad)
        leads_away = (below & (total > 0)) | (above & (total < 0))
        return grad.masked_fill(leads_away, 0.0), None, None


@dataclass(frozen=True)
class LossOutput:
    """The loss of a rank's rows.

    total: 0-d, the weighted sum, to differentiate. terms: the unweighted terms that are computed,
    0-d, without gradient. Both are this rank's share: their mean over ranks is the loss of the
    global batch. rows: pairs of the global batch behind each term, 0-d int64, the same on every
    rank; a term of no pair is 0 and says nothing.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]


def active_weights(config: ObjectiveConfig) -> dict[str, float]:
    """The weights of the terms that are computed, in the order of TERMS."""
    weights = {
        "imu_video": config.weights.imu_video,
        "imu_text": config.weights.imu_text,
        "imu_imu": config.weights.imu_imu,
        "neighbour_video": config.weights.neighbour_video,
        "neighbour_text": config.weights.neighbour_text,
        "neighbour_imu": config.weights.neighbour_imu,
    }
    return {term: weight for term, weight in weights.items() if weight > 0}


def check_objective(config: ObjectiveConfig, modalities: Collection[str]) -> None:
    """Raise ValueError where the objective needs a teacher that the data does not hold.

    modalities: of the teachers whose embeddings stand in the shards (or are computed live).
    """
    weights = active_weights(config)
    if not weights:
        raise ValueError("all of objective.weights are 0; there is nothing to learn")
    for term, weight in weights.items():
        modality = _modality(term)
        if modality != IMU and modality not in modalities:
            raise ValueError(
                f"objective.weights.{term} is {weight:g} but the data holds no {modality} "
                f"embeddings; set it to 0, or run `primus-scale shards embed` with a "
                f"{modality} teacher"
            )


def uses_neighbours(config: ObjectiveConfig) -> bool:
    """Whether any neighbour term is computed, so that a support set is needed."""
    return not active_weights(config).keys().isdisjoint(NEIGHBOUR_TERMS)


def support_spec(config: Config, teacher_dims: Mapping[str, int]) -> SupportSpec | None:
    """What the support set of a run is, or None where the objective has no neighbour term.

    teacher_dims: width of the teachers' embeddings by modality. Only what is searched or used as
    a key is kept.
    """
    objective, support = config.objective, config.support
    if not uses_neighbours(objective):
        return None
    keys = {_modality(term) for term in active_weights(objective) if term in NEIGHBOUR_TERMS}
    kept = {m: dim for m, dim in teacher_dims.items() if m in keys | {objective.neighbours.query}}
    return SupportSpec(
        support.capacity,
        {IMU: config.encoder.ss_dim, **kept},
        minimum_fill=support.minimum_fill,
        imu_answers="all" if keys == {IMU} else "multimodal",
        storage=support.storage,
        queried=(IMU, objective.neighbours.query),
        index=support.index,
        wait=support.synchronous or support.home == "in_process",
    )


# The answers to questions asked ahead, by modality; see ``ask_ahead``.
Asked = Mapping[str, Callable[[], Neighbours]]


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
    by_imu = batch.valid.clone()
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
    rows = (batch.valid & batch.present[modality]).nonzero().squeeze(1)
    return [(modality, batch.embeddings[modality], rows)]


@torch.no_grad()
def support_entries(view0: Embeddings, batch: Batch) -> SupportEntries:
    """What the global batch adds to a support set: the same entries, in order, on every rank."""
    valid = gather(batch.valid)
    return SupportEntries(
        uid=gather(batch.uid)[valid],
        recording=gather(batch.recording)[valid],
        start_s=gather(batch.start_s)[valid],
        embeddings={
            IMU: gather(view0.ss)[valid],
            **{name: gather(rows)[valid] for name, rows in batch.embeddings.items()},
        },
        present={
            IMU: valid[valid],
            **{name: gather(rows)[valid] for name, rows in batch.present.items()},
        },
    )


def primus_loss(
    view0: Embeddings,
    view1: Embeddings,
    temperatures: Mapping[str, torch.Tensor],
    batch: Batch,
    neighbours: Neighbours | None,
    config: ObjectiveConfig,
) -> LossOutput:
    """The objective on a rank's B rows; terms of weight 0 are not computed.

    neighbours: of the same rows, from ``find_neighbours``; None only where no neighbour term has
    weight. Rows of ``batch`` that are not valid take part in nothing.
    """
    weights = active_weights(config)
    modalities = set(map(_modality, weights))
    queries = {m: gather_rows(view0.ss if m == IMU else view0.mm[m]) for m in sorted(modalities)}
    total = view0.ss.new_zeros((), dtype=torch.float32)
    terms, rows = {}, {}
    for term, weight in weights.items():
        if term in DIRECT_TERMS:
            positives = direct_positives(_modality(term), view1, batch)
        else:
            assert neighbours is not None, f"{term} has weight, but there are no neighbours"
            positives = neighbour_positives(_modality(term), neighbours, batch, config.neighbours)
        family = "ss" if _modality(term) == IMU else "mm"
        contrast = _contrast(queries[_modality(term)], positives, temperatures[family], config)
        total = total + weight * contrast.loss
        terms[term], rows[term] = contrast.loss.detach(), contrast.rows
    return LossOutput(total, terms, rows)


def _modality(term: str) -> str:
    """What the keys of a term are: ``video``, ``text`` or ``imu``."""
    return term.split("_")[1]


def _contrast(
    queries: GlobalRows, positives: Positives, temperature: torch.Tensor, config: ObjectiveConfig
) -> Contrast:
    """The term's loss, averaged over all valid pairs of a row with one of its K keys."""
    ids, own = (positives.ids, positives.own) if config.mask_duplicate_keys else (None, None)
    same_cosine = SAME_KEY_COSINE if config.mask_duplicate_keys and positives.of_teacher else None
    contrasts = [
        contrastive(
            queries,
            gather_rows(positives.keys[:, k]),
            temperature,
            positives.valid[:, k],
            key_ids=None if ids is None else ids[:, k],
            same_cosine=same_cosine,
            no_negatives=None if own is None else own[k],
            reduction=config.reduction,
        )
        for k in range(positives.keys.shape[1])
    ]
    rows = torch.stack([contrast.rows for contrast in contrasts]).sum()
    weighted = torch.stack([contrast.loss * contrast.rows for contrast in contrasts]).sum()
    return Contrast(weighted / rows.clamp(min=1), rows)
