"""The precision that a run computes in: bfloat16 where the hardware has it, float32 elsewhere.

A processor without instructions for bfloat16 emulates it, some fifty times slower than float32.
"""

from __future__ import annotations

from typing import Literal

import torch

from primus_scale.distributed.collectives import gather, message_device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older versions of torch have no such function.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("avx512_bf16", False)


def choose_precision(
    setting: Literal["auto", "fp32", "bf16"], device: torch.device
) -> Literal["fp32", "bf16"]:
    """What ``train.precision`` means on ``device``; every rank calls it at the same time.

    ``auto`` is bf16 where the devices of all ranks have it, so that all compute alike.
    """
    if setting != "auto":
        return setting
    own = torch.tensor([has_bfloat16(device)], device=message_device())
    return "bf16" if bool(gather(own).all()) else "fp32"
