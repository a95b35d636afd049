"""What a card tells people beyond how to use the encoder: purpose, limits, citations, results."""

from __future__ import annotations

from pydantic import Field

from primus_scale.config import ConfigModel


class CardResult(ConfigModel):
    """The accuracy of the encoder on one task: a share of 1, with a 95 % interval over people.

    labels: labelled windows of each class that the probe had, ``"5"`` or ``"all"``. baseline: the
    best arm of the same evaluation without a pretrained encoder.
    """

    task: str
    protocol: str
    labels: str
    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    people: int = Field(ge=1)
    draws: int = Field(ge=1)
    baseline: str = ""
    baseline_value: float | None = Field(None, ge=0, le=1)


class AboutCard(ConfigModel):
    """Free text for people, in the encoder's card and on its page of the Hub.

    measured: how ``results`` were: command, commit, hardware.
    """

    title: str = ""
    summary: str = ""
    intended_use: str = ""
    limits: str = ""
    citations: tuple[str, ...] = ()
    results: tuple[CardResult, ...] = ()
    measured: str = ""
