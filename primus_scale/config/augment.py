"""The operations of the augmentation, and their settings; ``primus_scale.augment`` has the code."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from primus_scale.config.base import ConfigModel


class Scaling(ConfigModel):
    """Multiply each channel by its own factor, normal around 1."""

    name: Literal["scaling"] = "scaling"
    sd: float = Field(0.2, gt=0)
    p: float = Field(1.0, ge=0, le=1)


class Jitter(ConfigModel):
    """Add white noise with a deviation relative to each channel's own."""

    name: Literal["jitter"] = "jitter"
    sd: float = Field(0.1, gt=0)
    p: float = Field(1.0, ge=0, le=1)


class Permutation(ConfigModel):
    """Cut the window at random points and reorder the segments."""

    name: Literal["permutation"] = "permutation"
    cuts: int = Field(4, ge=1)
    p: float = Field(0.5, ge=0, le=1)


class Rotation(ConfigModel):
    """Rotate accelerometer and gyroscope by one SO(3) matrix of at most ``max_deg`` degrees."""

    name: Literal["rotation"] = "rotation"
    max_deg: float = Field(30.0, gt=0, le=180)
    p: float = Field(1.0, ge=0, le=1)


class TimeWarp(ConfigModel):
    """Replay the window at a smoothly varying speed, of relative deviation ``sd``.

    Samples move in time and keep their values, which those of a quicker motion would not.
    """

    name: Literal["time_warp"] = "time_warp"
    sd: float = Field(0.3, gt=0)
    knots: int = Field(4, ge=1)
    p: float = Field(1.0, ge=0, le=1)


class TimeFlip(ConfigModel):
    """Play the window backwards: the gyroscope then turns the other way."""

    name: Literal["time_flip"] = "time_flip"
    p: float = Field(0.5, ge=0, le=1)


class Negation(ConfigModel):
    """Change the sign of all channels, which no turn of a device does."""

    name: Literal["negation"] = "negation"
    p: float = Field(0.5, ge=0, le=1)


class ChannelDropout(ConfigModel):
    """Set a channel to zero, each with probability ``rate``."""

    name: Literal["channel_dropout"] = "channel_dropout"
    rate: float = Field(0.15, gt=0, lt=1)
    p: float = Field(1.0, ge=0, le=1)


AugmentOp = Annotated[
    Scaling | Jitter | Permutation | Rotation | TimeWarp | TimeFlip | Negation | ChannelDropout,
    Field(discriminator="name"),
]
AUGMENT_OPS: dict[str, type[ConfigModel]] = {
    op.model_fields["name"].default: op for op in get_args(get_args(AugmentOp)[0])
}

DEFAULT_AUGMENT: tuple[AugmentOp, ...] = (
    TimeWarp(),
    Rotation(),
    Scaling(),
    Jitter(),
    Permutation(),
    ChannelDropout(),
)
