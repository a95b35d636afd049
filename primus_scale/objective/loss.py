"""The PRIMUS objective: terms over views, teachers, neighbours and time.

    imu_video, imu_text               view 0 against the teachers' embeddings of the same window
    imu_imu                           view 0 against view 1
    neighbour_video, neighbour_text   view 0 against the teachers' embeddings of its neighbours
    neighbour_imu                     view 0 against the stored IMU embeddings of its neighbours
    imu_near                          view 1 against view 1 of windows near in time (``near``)
    imu_signal                        view 0 against the signal teacher's embedding of the same
                                      window; or both views, where it is a ``regression``

With w_t the weight of a term and L_t its loss, the objective is

    L = sum over t of w_t * L_t.

A contrastive term has K keys for each window: K = 1, except for neighbour terms with
``objective.neighbours.combine=each``. With L_tk the contrastive loss (``InfoNce`` or
``SigmoidLoss``) against the k-th keys, and n_k the number of windows that have a k-th key,

    L_t = sum over k of n_k * L_tk / sum over k of n_k.

Source of the first six terms: arXiv 2411.15127, section 3. A step (``train.step``) is
``find_neighbours`` -> ``primus_loss`` -> backward -> ``support.enqueue(support_entries(...))``. All
functions take the rows of one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.distributed.collectives import gather_with_grad
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import (
    InfoNce,
    Negatives,
    SigmoidLoss,
    TermLoss,
    gather_ids,
    ids_of_equal,
    share_of,
    unit_rows,
)
from primus_scale.objective.exchange import GlobalBatch, gather_batch
from primus_scale.objective.near import NearContrast
from primus_scale.objective.pairs import PairSum, sum_pairs
from primus_scale.objective.positives import Positives, direct_positives, neighbour_positives
from primus_scale.objective.regression import regression
from primus_scale.objective.terms import Term, is_regression, weighted_terms
from primus_scale.sample import IMU, Batch
from primus_scale.support import Neighbours

_Scale = tuple[torch.Tensor, torch.Tensor | None]  # temperature and bias

# Two teacher embeddings count as the same key if their cosine is above this. Embeddings are stored
# as float16, and those of one frame or sentence may differ in the last bits from batch to batch.
SAME_KEY_COSINE = 1 - 1e-5


@dataclass(frozen=True)
class LossOutput:
    """The loss of a rank's rows.

    total: 0-d, the weighted sum, with gradient. terms: the unweighted terms by name, 0-d, without
    gradient. Both are this rank's share: their mean over ranks is the loss of the global batch.
    rows: by name of the term, over how many rows of the global batch its mean goes, 0-d int64, the
    same on every rank: pairs of view and positive; of ``imu_near`` the windows that have positives
    and negatives. The value of a term without rows is 0 and has no meaning.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]


class _PairTerm(NamedTuple):
    """A term that sums over pairs: the sums to compute, and how their total becomes its loss."""

    sums: list[PairSum]
    loss_of: Callable[[torch.Tensor], TermLoss]


def primus_loss(
    view0: Embeddings,
    view1: Embeddings,
    temperatures: Mapping[str, torch.Tensor],
    batch: Batch,
    neighbours: Neighbours | None,
    config: ObjectiveConfig,
    *,
    biases: Mapping[str, torch.Tensor] | None = None,
    gathered: GlobalBatch | None = None,
) -> LossOutput:
    """The objective on a rank's B rows; see the formulas of the module.

    view0, view1: embeddings of the two views. temperatures: 0-d, by family of terms. biases: the
    same, needed by the sigmoid loss only. neighbours: from ``find_neighbours``; None only where no
    neighbour term has weight. gathered: the result of ``gather_batch`` with these arguments, where
    the caller has it already. Terms of weight 0 are not computed. The gradient of ``total`` is
    right where the same factor multiplies it on every rank.
    """
    gathered = gathered or gather_batch(view0, batch, neighbours, config)
    weights = weighted_terms(config)
    positives = _positives(weights, view1, batch, gathered, config)
    pair_terms: dict[Term, _PairTerm] = {}
    queries: dict[str, torch.Tensor] = {}
    for term in weights:
        if is_regression(term, config):
            continue
        scale = temperatures[term.family], (biases or {}).get(term.family)
        if term.kind == "near":
            pair_terms[term] = _near(view1, scale, batch, gathered, config)
        else:
            modality = term.modality
            if modality not in queries:
                queries[modality] = unit_rows(view0.ss if modality == IMU else view0.mm[modality])
            pair_terms[term] = _contrast(queries[modality], positives[term], scale, config)
    # One call for the sums of all terms: it sends one message.
    sums = iter(sum_pairs([each for term in pair_terms.values() for each in term.sums]))
    totals = {
        term: torch.stack([next(sums) for _ in pair_term.sums]).sum()
        for term, pair_term in pair_terms.items()
    }

    total = view0.ss.new_zeros((), dtype=torch.float32)
    terms, rows = {}, {}
    for term, weight in weights.items():
        if term in pair_terms:
            result = pair_terms[term].loss_of(totals[term])
        else:
            predictions = [view.mm[term.modality] for view in (view0, view1)]
            targets, valid = batch.embeddings[term.modality], batch.present[term.modality]
            global_rows = gathered.present[term.modality].sum()
            result = regression(predictions, targets, valid, global_rows)
        total = total + weight * result.loss
        terms[term.name], rows[term.name] = result.loss.detach(), result.rows
    return LossOutput(total, terms, rows)


def _positives(
    terms: Iterable[Term],
    view1: Embeddings,
    batch: Batch,
    gathered: GlobalBatch,
    config: ObjectiveConfig,
) -> dict[Term, list[Positives]]:
    """The positive keys of the contrastive terms, except ``imu_near``.

    With ``mask_duplicate_keys`` they say which other keys are no negatives of a row: those that
    equal its own key, and those of the query's moment.
    """
    found = {}
    for term in terms:
        if term.kind == "direct" and not is_regression(term, config):
            found[term] = [direct_positives(term.modality, view1, gathered)]
        elif term.kind == "neighbour":
            found[term] = neighbour_positives(term.modality, gathered, batch, config.neighbours)
    if not config.mask_duplicate_keys:
        return {
            term: [replace(each, ids=None, same_moment=None) for each in of_term]
            for term, of_term in found.items()
        }
    # One call for the ids of all terms: it sends one message.
    of_teachers = [each for of_term in found.values() for each in of_term if each.of_teacher]
    ids = iter(gather_ids([ids_of_equal(each.keys, SAME_KEY_COSINE) for each in of_teachers]))
    return {
        term: [replace(each, ids=next(ids)) if each.of_teacher else each for each in of_term]
        for term, of_term in found.items()
    }


def _contrast(
    queries: torch.Tensor, positives: Sequence[Positives], scale: _Scale, config: ObjectiveConfig
) -> _PairTerm:
    """A contrastive term, by the formula L_t of the module. queries ``(B, D)``: of unit length."""
    sums = []
    for each in positives:
        negatives = Negatives(each.valid, each.ids, each.same_moment)
        loss = (
            SigmoidLoss(negatives)
            if config.loss == "sigmoid"
            else InfoNce(negatives, config.reduction)
        )
        sums.append(PairSum(loss, queries, each.keys, *scale))
    rows = torch.stack([each.valid.sum() for each in positives]).sum()
    return _PairTerm(sums, lambda total: share_of(total, rows))


def _near(
    view1: Embeddings, scale: _Scale, batch: Batch, gathered: GlobalBatch, config: ObjectiveConfig
) -> _PairTerm:
    """The term ``imu_near``. Its loss has no bias."""
    assert view1.near is not None, "imu_near has weight, but the encoder has no head for it"
    unit = unit_rows(view1.near)
    loss = NearContrast(batch.origin, gathered.origin, config.near)
    sums = [PairSum(loss, unit, gather_with_grad(unit), scale[0])]
    return _PairTerm(sums, lambda total: TermLoss(total, loss.rows))
