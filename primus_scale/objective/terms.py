"""The terms of the objective: a table, and which of them a configuration computes.

Source: arXiv 2411.15127, section 3.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from primus_scale.config import ObjectiveConfig
from primus_scale.support import IMU

FAMILIES = ("mm", "ss")  # of terms: multimodal and self-supervised, each with its temperature


@dataclass(frozen=True)
class Term:
    """A contrastive term: view 0 of each window against keys.

    name: in logs, and of its weight in ``objective.weights``. keys: modality of the keys, and of
    the head of the encoder that asks for them (``imu``: the self-supervision head). family: whose
    temperature it has. kind: ``direct`` where keys are of the window itself, ``neighbour`` where
    they are of its neighbours in the support set.
    """

    name: str
    keys: str
    family: Literal["mm", "ss"]
    kind: Literal["direct", "neighbour"]


TERMS = (
    Term("imu_video", keys="video", family="mm", kind="direct"),
    Term("imu_text", keys="text", family="mm", kind="direct"),
    Term("imu_imu", keys=IMU, family="ss", kind="direct"),
    Term("neighbour_video", keys="video", family="mm", kind="neighbour"),
    Term("neighbour_text", keys="text", family="mm", kind="neighbour"),
    Term("neighbour_imu", keys=IMU, family="ss", kind="neighbour"),
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

    modalities: of the teachers whose embeddings stand in the shards (or are computed live).
    """
    weights = weighted_terms(config)
    if not weights:
        raise ValueError("all of objective.weights are 0; there is nothing to learn")
    for term, weight in weights.items():
        if term.keys != IMU and term.keys not in modalities:
            raise ValueError(
                f"objective.weights.{term.name} is {weight:g} but the data holds no {term.keys} "
                f"embeddings; set it to 0, or run `primus-scale shards embed` with a "
                f"{term.keys} teacher"
            )
