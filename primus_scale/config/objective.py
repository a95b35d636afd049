"""The objective: weights of its terms, temperatures, and which windows are compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from primus_scale.config.base import ConfigModel


class WeightsConfig(ConfigModel):
    """Weight of each loss term; a term of weight 0 is not computed."""

    imu_video: float = Field(0.5, ge=0)
    imu_text: float = Field(0.5, ge=0)
    imu_imu: float = Field(0.5, ge=0)
    neighbour_video: float = Field(0.5, ge=0)
    neighbour_text: float = Field(0.5, ge=0)
    neighbour_imu: float = Field(0.5, ge=0)
    imu_near: float = Field(0.0, ge=0)
    imu_signal: float = Field(0.0, ge=0)


class TemperatureConfig(ConfigModel):
    """The temperatures of families of terms, each of its own value.

    ``log`` learns the logarithm and clamps it to ``[minimum, maximum]``; ``reference`` learns the
    raw value without bounds, as the released code of the paper does; ``fixed`` does not learn.
    """

    mode: Literal["log", "reference", "fixed"] = "log"
    initial: float = Field(0.1, gt=0)
    minimum: float = Field(0.01, gt=0)
    maximum: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _check_bounds(self) -> TemperatureConfig:
        if self.mode == "log" and not self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"initial ({self.initial:g}) is not within [minimum, maximum] "
                f"([{self.minimum:g}, {self.maximum:g}]); move it or the bounds"
            )
        return self


class NeighboursConfig(ConfigModel):
    """How neighbours are searched in the support set and used as keys."""

    k: int = Field(1, ge=1)
    query: Literal["video", "text", "imu"] = "video"
    combine: Literal["mean", "each"] = "mean"  # one averaged key, or k losses averaged
    # entries that are no neighbours of a window. window: the window itself. moment: all windows of
    # its recording, by any device, that overlap it in time. recording: all of its recording.
    # session: all of its recording and all of its session
    exclude: Literal["window", "moment", "recording", "session"] = "moment"
    within: Literal["all", "session"] = "all"  # session: neighbours of the window's session only

    @model_validator(mode="after")
    def _check_some_are_left(self) -> NeighboursConfig:
        if self.within == self.exclude == "session":
            raise ValueError(
                "within=session and exclude=session leave no neighbours; set exclude=moment for "
                "neighbours of the same session, or within=all for those of other sessions"
            )
        return self


class NearConfig(ConfigModel):
    """The term ``imu_near``: windows of one session against each other, by their distance in time.

    Times in seconds between the starts of two windows.
    """

    min_s: float = Field(1.0, gt=0)  # positives are so far apart at least
    max_s: float = Field(5.0, gt=0)  # and at most
    exclude_s: float = Field(10.0, gt=0)  # windows within it are no negatives
    # 0: negatives of the session only; 1: of the whole batch; between: both losses, so mixed
    global_negatives: float = Field(0.0, ge=0, le=1)
    temperature: TemperatureConfig = TemperatureConfig(mode="fixed", initial=0.2)

    @model_validator(mode="after")
    def _check_order(self) -> NearConfig:
        if not self.min_s <= self.max_s <= self.exclude_s:
            raise ValueError(
                f"min_s ({self.min_s:g}), max_s ({self.max_s:g}) and exclude_s "
                f"({self.exclude_s:g}) must not descend; correct one of them"
            )
        return self


class SignalConfig(ConfigModel):
    """The term ``imu_signal``: a head of its own learns the signal teacher's embedding.

    ``regression``: both views predict it, by cosine. ``contrastive``: view 0 against the embeddings
    of the whole batch, as for video and text, at a ``temperature`` of its own.
    """

    loss: Literal["regression", "contrastive"] = "regression"
    temperature: TemperatureConfig = TemperatureConfig()


class ObjectiveConfig(ConfigModel):
    """The PRIMUS objective (arXiv 2411.15127, section 3): six weighted contrastive terms.

    Two more are off unless they are given a weight: ``imu_near``, contrast between windows near in
    time, which needs ``data.session_windows``, and ``imu_signal``, from a teacher of the signal.
    """

    weights: WeightsConfig = WeightsConfig()
    # of the contrastive terms but imu_near. sigmoid: SigLIP's (arXiv 2303.15343), with a learned
    # bias for each temperature
    loss: Literal["info_nce", "sigmoid"] = "info_nce"
    bias: float = -10.0  # of the sigmoid loss, when a run starts
    temperature: TemperatureConfig = TemperatureConfig()
    neighbours: NeighboursConfig = NeighboursConfig()
    near: NearConfig = NearConfig()
    signal: SignalConfig = SignalConfig()
    reduction: Literal["sum", "mean"] = "sum"  # of the two directions of a term (paper: sum)
    # True: keys equal to the positive, and neighbours' IMU keys of the row's own moment, are no
    # negatives
    mask_duplicate_keys: bool = True
