"""The parts of every IMU encoder: a backbone, its heads, and the embeddings that they give.

Shapes: B windows, C channels, T samples, D width of the features; see ``primus_scale.sample``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import nn

from primus_scale.config import EncoderConfig
from primus_scale.encoders.calibration import FeatureCalibration
from primus_scale.sample import IMU, JOINT_MODALITIES

SHARED = "shared"  # name of the one head of video and text teachers that share a space
NEAR_HIDDEN = 256  # width of the hidden layer of the head for near windows


class Embeddings(NamedTuple):
    """The output of an encoder for B windows; no tensor is normalised.

    features ``(B, D)``; ss ``(B, Ds)`` of the self-supervision head; mm ``(B, Dt)`` by teacher
    modality, the same tensor twice where video and text share a head; near ``(B, Dn)`` of the head
    for windows near in time, None without one.

    A named tuple, not a dataclass: DeepSpeed's ZeRO-3 hooks look for tensors inside tuples and
    dictionaries only.
    """

    features: torch.Tensor
    ss: torch.Tensor
    mm: dict[str, torch.Tensor]
    near: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Embeddings:
        """The same embeddings with ``function`` applied to each tensor."""
        return Embeddings(
            function(self.features),
            function(self.ss),
            {modality: function(tensor) for modality, tensor in self.mm.items()},
            None if self.near is None else function(self.near),
        )

    def chunk(self, parts: int) -> tuple[Embeddings, ...]:
        """Split along the batch into ``parts`` equal parts, such as the two stacked views.

        Raises ValueError where B does not divide by ``parts``.
        """
        rows = self.features.shape[0]
        if rows % parts:
            raise ValueError(f"{rows} rows cannot be cut into {parts} equal parts")
        size = rows // parts
        starts = range(0, rows, size)
        return tuple(self.map(itemgetter(slice(start, start + size))) for start in starts)

    @staticmethod
    def cat(parts: Sequence[Embeddings]) -> Embeddings:
        """Join along the batch; the reverse of ``chunk``."""
        return Embeddings(
            torch.cat([part.features for part in parts]),
            torch.cat([part.ss for part in parts]),
            {key: torch.cat([part.mm[key] for part in parts]) for key in parts[0].mm},
            None
            if parts[0].near is None
            else torch.cat([p.near for p in parts if p.near is not None]),
        )


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's architecture and its input.

    channels, samples, rate_hz: of a window. teacher_dims: width of each teacher's space by
    modality. shared_head: one head is used for video and text. near_head: there is a head for
    windows near in time.
    """

    config: EncoderConfig
    channels: int
    samples: int
    rate_hz: float
    teacher_dims: Mapping[str, int]
    shared_head: bool
    near_head: bool = False

    @property
    def dims(self) -> dict[str, int]:
        """Width of the embeddings by modality: IMU (self-supervision), and the teachers'."""
        return {IMU: self.config.ss_dim, **self.teacher_dims}


class Backbone(nn.Module):
    """From imu ``(B, C, T)`` float32 in SI units to features ``(B, D)``.

    The heads take the last ``width`` of the D features. With ``encoder.features=all`` statistics of
    earlier layers stand before these; otherwise D is ``width``.
    """

    width: int


class Heads(nn.Module):
    """Heads on the features: one for self-supervision, one for each teacher space, all linear.

    The head for windows near in time, if there is one, has a hidden layer, as in SimCLR (arXiv
    2002.05709): what is the same in near windows is kept in the features, not only in the head.
    """

    def __init__(self, width: int, spec: EncoderSpec) -> None:
        super().__init__()
        self.width = width
        shared = JOINT_MODALITIES if spec.shared_head else ()
        self.names = {m: SHARED if m in shared else m for m in spec.teacher_dims}  # of their heads
        self.ss = nn.Linear(width, spec.config.ss_dim)
        dims = {self.names[modality]: dim for modality, dim in spec.teacher_dims.items()}
        self.mm = nn.ModuleDict({name: nn.Linear(width, dim) for name, dim in dims.items()})
        self.near = near_head(width, spec.config.near_dim) if spec.near_head else None

    def forward(self, features: torch.Tensor) -> Embeddings:
        """Turn features ``(B, D)`` into embeddings."""
        last = features[:, -self.width :]
        outputs = {name: head(last) for name, head in self.mm.items()}
        mm = {modality: outputs[name] for modality, name in self.names.items()}
        near = None if self.near is None else self.near(last)
        return Embeddings(features, self.ss(last), mm, near)


class NoHeads(nn.Module):
    """In place of heads whose outputs nobody reads: they are computed and trained for nothing."""

    def forward(self, features: torch.Tensor) -> Embeddings:
        """The features ``(B, D)``, and an embedding of width 0."""
        return Embeddings(features, features[:, :0], {})


def near_head(width: int, dim: int) -> nn.Module:
    """The head for windows near in time: features ``(B, width)`` -> ``(B, dim)``."""
    return nn.Sequential(
        nn.Linear(width, NEAR_HIDDEN),
        nn.LayerNorm(NEAR_HIDDEN),
        nn.GELU(),
        nn.Linear(NEAR_HIDDEN, dim),
    )


class ImuEncoder(nn.Module):
    """A backbone with its heads: imu ``(B, C, T)`` float32 in SI units -> ``Embeddings``.

    It takes float32 windows also if its weights have another precision, since the normalisation of
    the input needs it. The embeddings have the precision of the weights.

    calibration: the linear step that ``features`` take after the heads have read them; None in
    training, and where the encoder was exported without one.
    """

    calibration: FeatureCalibration | None

    def __init__(self, backbone: Backbone, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.heads: nn.Module = Heads(backbone.width, spec)
        self.calibration = None

    def forward(self, imu: torch.Tensor) -> Embeddings:
        """Embed imu ``(B, C, T)``; raises ValueError where C or T is not the encoder's."""
        expected = (self.spec.channels, self.spec.samples)
        if imu.ndim != 3 or imu.shape[1:] != expected:
            raise ValueError(
                f"imu has shape {tuple(imu.shape)}, but this encoder takes (B, {expected[0]}, "
                f"{expected[1]}), which is {self.spec.samples / self.spec.rate_hz:g} s at "
                f"{self.spec.rate_hz:g} Hz; resample or cut the windows to that"
            )
        embeddings: Embeddings = self.heads(self.backbone(imu))
        if self.calibration is None:
            return embeddings
        return embeddings._replace(features=self.calibration(embeddings.features))
