"""An encoder for windows of other sensors: the input is made anew, the rest keeps its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from primus_scale.encoders import check_channels
from primus_scale.encoders.base import ImuEncoder
from primus_scale.encoders.input import Standardise
from primus_scale.encoders.pretrained import PretrainedEncoder, build_encoder_of
from primus_scale.sample import WindowFormat

LEAST_KEPT = 0.5  # of the parameters; below, little of what was learnt would be there


def adapt_encoder(
    pretrained: PretrainedEncoder,
    windows: WindowFormat,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
) -> tuple[PretrainedEncoder, float]:
    """The encoder for ``windows``, and the share of its parameters that are the pretrained ones.

    mean, std: of each channel, in its unit. A layer whose shape depends on the channels (a first
    convolution) is fresh, from ``seed``; one that joins input statistics with those of later layers
    keeps the latter.
    Channels relative to gravity and hand-crafted features, which are of IMUs, are left out, and so
    is the calibration. ValueError where less than half of the parameters would be pretrained.
    """
    config = pretrained.card.encoder.model_copy(update={"features": "last"})
    if config.gravity:
        try:
            check_channels(config, windows.units)
        except ValueError:
            config = config.model_copy(update={"gravity": False})
    changes = {
        **{"encoder": config, "channels": windows.channels, "units": windows.units},
        **{"window_samples": windows.samples, "rate_hz": windows.rate_hz},
    }
    card = pretrained.card.model_copy(update=changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder_of(card)
    kept = _copy_weights(pretrained, encoder)
    total = sum(parameter.numel() for parameter in encoder.parameters())
    if kept < LEAST_KEPT * total:
        raise ValueError(
            f"only {kept:,} of {total:,} parameters of {config.name} do not depend on the windows' "
            f"channels and length ({len(windows.channels)} channels x {windows.samples} samples at "
            f"{windows.rate_hz:g} Hz); build windows of as many samples as the encoder takes, or "
            "give another encoder"
        )
    for module in encoder.modules():
        if isinstance(module, Standardise):
            module.mean.copy_(torch.tensor(mean)[:, None])
            module.std.copy_(torch.tensor(std)[:, None])
    card = card.model_copy(update={"parameters": total})
    return PretrainedEncoder(encoder, card), kept / total


@torch.no_grad()
def _copy_weights(pretrained: ImuEncoder, encoder: ImuEncoder) -> int:
    """Copy what fits; the number of parameters copied."""
    theirs = dict(pretrained.backbone.named_parameters())
    theirs = {name.removeprefix("learned."): weights for name, weights in theirs.items()}
    seen = [_input_channels(one) for one in (pretrained, encoder)]
    kept = 0
    for name, own in encoder.backbone.named_parameters():
        source = theirs.get(name)
        if source is None or source.shape[:-1] != own.shape[:-1]:
            continue
        # Mean and deviation of each input channel stand before the statistics of later layers.
        tail = own.shape[-1] - 2 * seen[1]
        if source.shape == own.shape:
            own.copy_(source)
            kept += own.numel()
        elif own.ndim <= 2 and 0 < tail == source.shape[-1] - 2 * seen[0]:
            own[..., -tail:] = source[..., -tail:].to(own.device)
            kept += own[..., -tail:].numel()
    heads = dict(pretrained.heads.named_parameters())
    for name, own in encoder.heads.named_parameters():
        if name in heads and heads[name].shape == own.shape:
            own.copy_(heads[name])
            kept += own.numel()
    return kept


def _input_channels(encoder: ImuEncoder) -> int:
    """Channels behind the standardisation, the first of the encoder; 0 without one."""
    found = (module.channels for module in encoder.modules() if isinstance(module, Standardise))
    return next(found, 0)
