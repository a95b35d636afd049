"""The PRIMUS objective: terms over views, teachers, neighbours and time.

    imu_video, imu_text               view 0 against the teachers' embeddings of the same window
    imu_imu                           view 0 against view 1
    neighbour_video, neighbour_text   view 0 against the teachers' embeddings of its neighbours
    neighbour_imu                     view 0 against the stored IMU embeddings of its neighbours
    imu_near                          windows of one session, near in time, in view 1 (``near``)
    imu_signal                        against the signal teacher's embedding of the same window:
                                      view 0, contrastive; or both views, by ``regression``

With w_t the weight of a term and L_t its loss, the objective is

    L = sum over t of w_t * L_t.

A contrastive term has K keys for each window: K = 1, except for neighbour terms with
``objective.neighbours.combine=each``. With L_tk the contrastive loss (``contrastive``) against the
k-th keys, and n_k the number of windows that have a k-th key,

    L_t = sum over k of n_k * L_tk / sum over k of n_k.

Source of the first six terms: arXiv 2411.15127, section 3. A step (``train.step``) is
``find_neighbours`` -> ``primus_loss`` -> backward -> ``support.enqueue(support_entries(...))``. All
functions take the rows of one rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import GlobalRows, TermLoss, contrastive, gather_rows
from primus_scale.objective.near import near_contrast
from primus_scale.objective.positives import Positives, direct_positives, neighbour_positives
from primus_scale.objective.regression import regression
from primus_scale.objective.terms import Term, is_regression, weighted_terms
from primus_scale.sample import IMU, Batch
from primus_scale.support import Neighbours

# Two teacher embeddings above this cosine count as the same key. They are stored as float16, and
# the same frame or sentence, embedded in two batches, may differ in the last bits.
SAME_KEY_COSINE = 1 - 1e-5


@dataclass(frozen=True)
class LossOutput:
    """The loss of a rank's rows.

    total: 0-d, the weighted sum, to differentiate. terms: the unweighted terms, by name, 0-d,
    without gradient. Both are this rank's share: their mean over ranks is the loss of the global
    batch. rows: by term, the number of positive pairs in the global batch, 0-d int64, the same on
    every rank; a term without pairs is 0 and has no meaning.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]


def primus_loss(
    view0: Embeddings,
    view1: Embeddings,
    temperatures: Mapping[str, torch.Tensor],
    batch: Batch,
    neighbours: Neighbours | None,
    config: ObjectiveConfig,
) -> LossOutput:
    """The objective on a rank's B rows; see the formulas of the module.

    view0, view1: embeddings of the two views. temperatures: 0-d, by family of terms. neighbours:
    of the same rows, from ``find_neighbours``; None only where no neighbour term has weight. Terms
    of weight 0 are not computed.
    """
    weights = weighted_terms(config)
    contrasted = (t for t in weights if t.kind != "near" and not is_regression(t, config))
    modalities = sorted({term.modality for term in contrasted})
    queries = {m: gather_rows(view0.ss if m == IMU else view0.mm[m]) for m in modalities}
    total = view0.ss.new_zeros((), dtype=torch.float32)
    terms, rows = {}, {}
    for term, weight in weights.items():
        if term.kind == "near":
            assert view1.near is not None, f"{term.name} has weight, but the encoder has no head"
            near = gather_rows(view1.near)
            found = near_contrast(near, temperatures[term.family], batch.origin, config.near)
        elif is_regression(term, config):
            predictions = [view.mm[term.modality] for view in (view0, view1)]
            targets, valid = batch.embeddings[term.modality], batch.present[term.modality]
            found = regression(predictions, targets, valid)
        else:
            positives = _positives(term, view1, batch, neighbours, config)
            temperature = temperatures[term.family]
            found = _contrast(queries[term.modality], positives, temperature, config)
        total = total + weight * found.loss
        terms[term.name], rows[term.name] = found.loss.detach(), found.rows
    return LossOutput(total, terms, rows)


def _positives(
    term: Term,
    view1: Embeddings,
    batch: Batch,
    neighbours: Neighbours | None,
    config: ObjectiveConfig,
) -> Positives:
    if term.kind == "direct":
        return direct_positives(term.modality, view1, batch)
    assert neighbours is not None, f"{term.name} has weight, but there are no neighbours"
    return neighbour_positives(term.modality, neighbours, batch, config.neighbours)


def _contrast(
    queries: GlobalRows, positives: Positives, temperature: torch.Tensor, config: ObjectiveConfig
) -> TermLoss:
    """A term's loss L_t; see the formula of the module."""
    ids = positives.ids if config.mask_duplicate_keys else None
    same_moment = positives.same_moment if config.mask_duplicate_keys else None
    same_cosine = SAME_KEY_COSINE if config.mask_duplicate_keys and positives.of_teacher else None
    contrasts = [
        contrastive(
            queries,
            gather_rows(positives.keys[:, k]),
            temperature,
            positives.valid[:, k],
            key_ids=None if ids is None else ids[:, k],
            same_cosine=same_cosine,
            no_negatives=None if same_moment is None else same_moment[k],
            reduction=config.reduction,
        )
        for k in range(positives.keys.shape[1])
    ]
    rows = torch.stack([contrast.rows for contrast in contrasts]).sum()
    weighted = torch.stack([contrast.loss * contrast.rows for contrast in contrasts]).sum()
    return TermLoss(weighted / rows.clamp(min=1), rows)
