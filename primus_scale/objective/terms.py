"""The terms of the objective: a table, and which of them a configuration computes.

Source: arXiv 2411.15127, section 3.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from primus_scale.config import ObjectiveConfig
from primus_scale.sample import IMU

FAMILIES = ("mm", "ss")  # of terms: multimodal, self-supervised; each has its own temperature


@dataclass(frozen=True)
class Term:
    """A contrastive term: view 0 of each window against keys.

    name: in logs, and of its weight in ``objective.weights``. modality: of the keys; the queries
    come from the encoder's head for it (``imu``: the self-supervision head). family: selects the
    temperature. kind: ``direct`` where the keys are embeddings of the window itself, ``neighbour``
    where they are embeddings of its neighbours in the support set.
    """

    name: str
    modality: str
    family: Literal["mm", "ss"]
    kind: Literal["direct", "neighbour"]


TERMS = (
    Term("imu_video", modality="video", family="mm", kind="direct"),
    Term("imu_text", modality="text", family="mm", kind="direct"),
    Term("imu_imu", modality=IMU, family="ss", kind="direct"),
    Term("neighbour_video", modality="video", family="mm", kind="neighbour"),
    Term("neighbour_text", modality="text", family="mm", kind="neighbour"),
    Term("neighbour_imu", modality=IMU, family="ss", kind="neighbour"),
)


def weighted_terms(config: ObjectiveConfig) -> dict[Term, float]:
    """The terms that are computed, with their weights, in the order of TERMS."""
    weights = {term: float(getattr(config.weights, term.name)) for term in TERMS}
    return {term: weight for term, weight in weights.items() if weight > 0}


def uses_neighbours(config: ObjectiveConfig) -> bool:
    """Whether any neighbour term is computed, so that a support set is needed."""
    return any(term.kind == "neighbour" for term in weighted_terms(config))


def check_objective(config: ObjectiveConfig, modalities: Collection[str]) -> None:
    """Raise ValueError where the objective needs a teacher that the data does not hold.

    modalities: those of the teachers whose embeddings are in the shards or are computed live.
    """
    weights = weighted_terms(config)
    if not weights:
        raise ValueError("all of objective.weights are 0; there is nothing to learn")
    for term, weight in weights.items():
        if term.modality != IMU and term.modality not in modalities:
            raise ValueError(
                f"objective.weights.{term.name} is {weight:g} but the data holds no "
                f"{term.modality} embeddings; set it to 0, or run `primus-scale shards embed` "
                f"with a {term.modality} teacher"
            )
