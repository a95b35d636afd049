"""IMU encoders: ``build_encoder`` makes one from its configuration, ``export`` saves and loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from primus_scale.config import EncoderConfig
from primus_scale.encoders.base import Backbone, Embeddings, EncoderSpec, ImuEncoder
from primus_scale.encoders.conv_stats import ConvStats
from primus_scale.encoders.handcrafted import HandcraftedBeside
from primus_scale.encoders.input import AXES, GravityFrame, Standardise
from primus_scale.encoders.stacked_rnn import StackedRnn, StackedRnnTime
from primus_scale.encoders.transformer import Transformer
from primus_scale.sample import JOINT_MODALITIES

__all__ = ["Embeddings", "EncoderSpec", "ImuEncoder", "build_encoder", "check_channels"]


def build_encoder(
    config: EncoderConfig,
    *,
    channels: int,
    samples: int,
    rate_hz: float,
    teacher_dims: Mapping[str, int],
    shared: bool,
    near: bool = False,
    mean: Sequence[float],
    std: Sequence[float],
) -> ImuEncoder:
    """Make the encoder that ``config`` names, with fresh weights from torch's global generator.

    teacher_dims: width of each teacher's space by modality, empty without teachers. shared: video
    and text teachers embed into one joint space; ``config.heads`` may overrule it. near: with a
    head for windows near in time. mean, std: of each channel over the training data, in the
    channels' units; ``stacked_rnn`` uses them with ``encoder.pooling=stats`` only.

    Raises ValueError where settings contradict each other or the window.
    """
    wants_shared = shared if config.heads == "auto" else config.heads == "shared"
    joint = {m: dim for m, dim in teacher_dims.items() if m in JOINT_MODALITIES}
    shared_head = wants_shared and bool(joint)
    if shared_head and len(set(joint.values())) > 1:
        raise ValueError(
            f"one shared head cannot serve teachers of widths {joint}; set encoder.heads=separate"
        )
    spec = EncoderSpec(config, channels, samples, rate_hz, dict(teacher_dims), shared_head, near)
    backbone = _build_backbone(spec, mean, std)
    if config.features == "handcrafted":
        backbone = HandcraftedBeside(backbone, samples, rate_hz)
    return ImuEncoder(backbone, spec)


def check_channels(config: EncoderConfig, units: Sequence[str]) -> None:
    """ValueError where channels in ``units`` are not what the encoder's settings need."""
    if _adds_gravity(config) and (len(units) % AXES or set(units[:AXES]) != {"m/s2"}):
        raise ValueError(
            f"encoder.name={config.name} adds channels relative to gravity (encoder.gravity), for "
            "which channels are triplets and the first is an accelerometer's in m/s2, but the "
            f"windows' channels are in {', '.join(units)}; set encoder.gravity=false"
        )


def _adds_gravity(config: EncoderConfig) -> bool:
    return config.gravity and (config.pooling == "stats" or config.name == "conv_stats")


def _build_backbone(spec: EncoderSpec, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != spec.channels:
            raise ValueError(f"{name} has {len(values)} values for {spec.channels} channels")
    if min(std) <= 0:
        raise ValueError(f"std {tuple(std)} has a channel without variation; check the shards' IMU")
    config = spec.config
    stats = config.pooling == "stats"
    standardise = (GravityFrame if _adds_gravity(config) else Standardise)(mean, std)
    keep = config.features == "all"
    if keep and not (stats or config.name == "conv_stats"):
        raise ValueError(
            f"encoder.features=all keeps pooled statistics, which encoder.name={config.name} has "
            "with encoder.pooling=stats only; set that, or encoder.features=last"
        )
    if config.name == "stacked_rnn":
        statistics = standardise if stats else None
        return StackedRnn(spec.channels, spec.samples, statistics, keep_statistics=keep)
    if config.name == "stacked_rnn_time":
        return StackedRnnTime(spec.samples, standardise, stats=stats, keep_statistics=keep)
    if config.name == "conv_stats":
        return ConvStats(config.size, standardise, keep_statistics=keep)
    return Transformer(
        config.size, config.patch, spec.samples, standardise, stats=stats, keep_statistics=keep
    )
