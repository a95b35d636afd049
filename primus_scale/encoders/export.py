"""Write an encoder as a folder with ``encoder.safetensors`` and ``card.json``, free of DeepSpeed.

``primus_scale.encoders.pretrained`` loads it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from primus_scale.encoders.base import ImuEncoder
from primus_scale.encoders.card import CARD_FILE, EncoderCard, read_card

WEIGHTS_FILE = "encoder.safetensors"
ENCODER_FOLDER = "encoder"  # of a run
LARGE = 2000  # values of a tensor that is stored in half precision, where that is asked for


def save_encoder(
    encoder: ImuEncoder, directory: str | Path, card: EncoderCard, *, half: bool = False
) -> None:
    """Write ``encoder`` (as float32) and its card into the local folder ``directory``.

    half: large tensors as float16; small ones, which shift and scale the rest, stay float32.
    An earlier export in the folder is replaced after the new one is completely written. Raises
    ValueError where a weight is not finite, OSError naming the folder where it cannot be written;
    an earlier export does not change then.
    """
    assert (encoder.calibration is None) == (card.calibration.kind == "none")
    tensors = {}
    for name, tensor in encoder.state_dict().items():
        assert tensor.numel(), f"{name} is partitioned by ZeRO-3: gather the weights first"
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weight {name} is not finite; export an earlier checkpoint")
        kind = torch.float16 if half and tensor.numel() >= LARGE else torch.float32
        tensors[name] = tensor.detach().to("cpu", kind).contiguous()
    weights = safetensors.torch.save(tensors)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    text = json.dumps(card.model_dump(mode="json"), indent=2) + "\n"
    try:
        _replace_export(Path(directory), weights, text.encode("utf-8"))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the encoder to {directory} ({error.strerror}); "
            "free some space there or choose another output folder",
        ) from error


def check_same_origin(directory: str | Path, data: Mapping[str, object]) -> None:
    """FileExistsError where ``directory`` holds an encoder of another run or of another source.

    data: of the new card. A damaged export is no reason: it may be replaced.
    """
    try:
        held = read_card(directory).data
    except (OSError, ValueError):
        return
    origin, wanted = (of.get("run") or of.get("source") or "elsewhere" for of in (held, data))
    if origin != wanted:
        raise FileExistsError(
            f"{directory} holds the encoder of {origin}, not of {wanted}; name another folder, or "
            "delete it"
        )


def _replace_export(directory: Path, weights: bytes, card: bytes) -> None:
    """Write both files under temporary names, then rename them.

    The old card is deleted before the weights are replaced, and the new card is renamed last. So
    after a kill at any moment the folder loads, or is reported as incomplete; it is never mixed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = {WEIGHTS_FILE: weights, CARD_FILE: card}
    partial = {name: directory / f"{name}.partial" for name in content}
    try:
        for name, path in partial.items():
            with path.open("wb") as file:
                file.write(content[name])
                file.flush()
                os.fsync(file.fileno())
        (directory / CARD_FILE).unlink(missing_ok=True)
        for name, path in partial.items():
            path.replace(directory / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
