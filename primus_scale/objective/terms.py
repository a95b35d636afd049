"""The table of the objective's terms, and which of them a configuration computes.

Source: arXiv 2411.15127, section 3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from primus_scale.config import ObjectiveConfig, TemperatureConfig
from primus_scale.sample import IMU, SIGNAL

Space = TypeVar("Space")  # what is known about a teacher's embeddings


@dataclass(frozen=True)
class Term:
    """A term of the objective, which compares each window (the query) with keys.

    name: in logs and in ``objective.weights``. modality: of the keys. family: terms of a family
    have one temperature (``mm``: multimodal, ``ss``: self-supervised, ``near``: near in time,
    ``signal``: the signal teacher). The term of the family ``signal`` may be a regression onto its
    keys (``objective.signal``).

    kind: which keys. ``direct``: embeddings of the window itself. ``neighbour``: embeddings of its
    neighbours in the support set. The queries of both are of view 0, from the encoder's head for
    the modality (``imu``: the self-supervision head). ``near``: queries and keys are of view 1,
    from the head for near windows (``objective.near``).
    """

    name: str
    modality: str
    family: Literal["mm", "ss", "near", "signal"]
    kind: Literal["direct", "neighbour", "near"]


TERMS = (
    Term("imu_video", modality="video", family="mm", kind="direct"),
    Term("imu_text", modality="text", family="mm", kind="direct"),
    Term("imu_imu", modality=IMU, family="ss", kind="direct"),
    Term("neighbour_video", modality="video", family="mm", kind="neighbour"),
    Term("neighbour_text", modality="text", family="mm", kind="neighbour"),
    Term("neighbour_imu", modality=IMU, family="ss", kind="neighbour"),
    Term("imu_near", modality=IMU, family="near", kind="near"),
    Term("imu_signal", modality=SIGNAL, family="signal", kind="direct"),
)


def weighted_terms(config: ObjectiveConfig) -> dict[Term, float]:
    """The terms that are computed, with their weights, in the order of TERMS."""
    weights = {term: float(getattr(config.weights, term.name)) for term in TERMS}
    return {term: weight for term, weight in weights.items() if weight > 0}


def uses_neighbours(config: ObjectiveConfig) -> bool:
    """Whether any neighbour term is computed, so that a support set is needed."""
    return any(term.kind == "neighbour" for term in weighted_terms(config))


def uses_near(config: ObjectiveConfig) -> bool:
    """Whether the term ``imu_near`` is computed, so that batches must hold near windows."""
    return any(term.kind == "near" for term in weighted_terms(config))


def uses_signal(config: ObjectiveConfig) -> bool:
    """Whether the term ``imu_signal`` is computed, so that the encoder needs a head for it."""
    return any(term.modality == SIGNAL for term in weighted_terms(config))


def is_regression(term: Term, config: ObjectiveConfig) -> bool:
    """Whether ``term`` is a regression onto its keys, without temperature and negatives."""
    return term.family == "signal" and config.signal.loss == "regression"


def temperature_configs(config: ObjectiveConfig) -> dict[str, TemperatureConfig]:
    """The temperatures of the model, by family of terms; "near" and "signal" only where used."""
    configs = dict.fromkeys(("mm", "ss"), config.temperature)
    if uses_near(config):
        configs["near"] = config.near.temperature
    if uses_signal(config) and config.signal.loss == "contrastive":
        configs["signal"] = config.signal.temperature
    return configs


def initial_biases(config: ObjectiveConfig) -> dict[str, float]:
    """The biases of the sigmoid loss when a run starts, by family of terms; none for InfoNCE."""
    if config.loss != "sigmoid":
        return {}
    return {family: config.bias for family in temperature_configs(config) if family != "near"}


def with_heads(config: ObjectiveConfig, spaces: Mapping[str, Space]) -> dict[str, Space]:
    """The teachers' ``spaces``, by modality, without those that the encoder gets no head for.

    It gets a head for the signal teacher only where that term is computed. So shards with the
    signal teacher's embeddings give the same run as shards without them.
    """
    return {m: space for m, space in spaces.items() if m != SIGNAL or uses_signal(config)}


def check_objective(config: ObjectiveConfig, modalities: Collection[str]) -> None:
    """Raise ValueError where the objective needs a teacher that the data does not hold.

    modalities: those of the teachers whose embeddings are in the shards or are computed live.
    """
    weights = weighted_terms(config)
    if not weights:
        raise ValueError("all of objective.weights are 0; there is nothing to learn")
    for term, weight in weights.items():
        if term.modality != IMU and term.modality not in modalities:
            teacher = "handcrafted" if term.modality == SIGNAL else "TEACHER"
            raise ValueError(
                f"objective.weights.{term.name} is {weight:g} but the data holds no "
                f"{term.modality} embeddings; set it to 0, or run `primus-scale shards embed "
                f"--{term.modality} {teacher}`"
            )
