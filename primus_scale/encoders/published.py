"""Import of the paper's published weights (Zenodo record 15147513, ``best_model.ckpt``).

The file is a Lightning checkpoint; its ``state_dict`` holds the IMU encoder under ``imu_encoder.``,
and the frozen teachers, which are not imported. Only tensors are read, never code: the file is
opened with ``weights_only=True`` and memory-mapped, so the teachers' half gigabyte is not loaded.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from primus_scale.config import EncoderConfig
from primus_scale.encoders import build_encoder
from primus_scale.encoders.base import ImuEncoder
from primus_scale.encoders.card import describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.storage.foreign import decoding, reason

SOURCE = "https://zenodo.org/records/15147513"
PREFIX = "imu_encoder."
SAMPLES = 250
RATE_HZ = 50.0
TEACHER_DIM = 512
TEACHER = "Searchium-ai/clip4clip-webvid150k"

# Published name (after the prefix) -> name in ImuEncoder.
NAMES = {
    "backbone.0.weight": "backbone.input_norm.weight",
    "backbone.0.bias": "backbone.input_norm.bias",
    "backbone.1.net.0.weight": "backbone.convolutions.convolutions.0.weight",
    "backbone.2.net.0.weight": "backbone.convolutions.convolutions.1.weight",
    "backbone.3.net.0.weight": "backbone.convolutions.convolutions.2.weight",
    "backbone.4.weight": "backbone.convolutions.norm.weight",
    "backbone.4.bias": "backbone.convolutions.norm.bias",
    "backbone.5.weight_ih_l0": "backbone.gru.weight_ih_l0",
    "backbone.5.weight_hh_l0": "backbone.gru.weight_hh_l0",
    "backbone.5.bias_ih_l0": "backbone.gru.bias_ih_l0",
    "backbone.5.bias_hh_l0": "backbone.gru.bias_hh_l0",
    "ssl_head.weight": "heads.ss.weight",
    "ssl_head.bias": "heads.ss.bias",
    "mmcl_head.weight": "heads.mm.shared.weight",
    "mmcl_head.bias": "heads.mm.shared.bias",
}


def import_published(checkpoint: str | Path, directory: str | Path) -> Path:
    """Turn the published checkpoint into an exported encoder; returns its folder.

    Raises FileNotFoundError where there is no such file, and ValueError naming the file where it
    is damaged, is no such checkpoint, or would need code to be run; nothing is written then.
    """
    checkpoint = Path(checkpoint)
    encoder = _published_architecture()
    weights = _encoder_weights(_read_state_dict(checkpoint), encoder, checkpoint)
    encoder.load_state_dict(weights)
    teacher = {"dim": TEACHER_DIM, "key": TEACHER, "space": TEACHER, "teacher": TEACHER}
    card = describe_encoder(
        encoder,
        teachers={"video": teacher, "text": teacher},
        data={"source": SOURCE, "trained_on": "Ego-Exo4D, Aria IMU, 5 s windows at 50 Hz"},
        objective={"name": "PRIMUS, as released by its authors", "paper": "arXiv 2411.15127"},
        licence="CC-BY-4.0",
    )
    save_encoder(encoder, directory, card)
    return Path(directory)


def _published_architecture() -> ImuEncoder:
    return build_encoder(
        EncoderConfig(name="stacked_rnn", ss_dim=512),
        channels=6,
        samples=SAMPLES,
        rate_hz=RATE_HZ,
        teacher_dims={"video": TEACHER_DIM, "text": TEACHER_DIM},
        shared=True,
        mean=(0.0,) * 6,  # stacked_rnn normalises each window by itself
        std=(1.0,) * 6,
    )


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    """The ``state_dict`` of a Lightning checkpoint, with memory-mapped tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; download best_model.ckpt from {SOURCE}")
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds pickled objects other than tensors, which could run code, and is "
            f"refused; download best_model.ckpt again from {SOURCE} ({reason(error)})"
        ) from None
    except Exception as error:  # of any kind: the file may be anybody's
        raise ValueError(
            f"{path} is no checkpoint that torch can read ({reason(error)}); "
            f"download best_model.ckpt from {SOURCE}"
        ) from None
    state_dict = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state_dict, dict):
        raise ValueError(
            f"{path} is no Lightning checkpoint: it has no 'state_dict'; "
            f"download best_model.ckpt from {SOURCE}"
        )
    return state_dict


def _check_archive(path: Path) -> None:
    """Check the archive's checksums, which torch does not check for memory-mapped tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Torch stores members as they are; others could unpack to any size.
            stored = sum(member.file_size for member in archive.infolist())
            if stored > path.stat().st_size:
                raise ValueError(f"its members claim {stored} bytes")
            damaged = archive.testzip()
    except Exception as error:  # of any kind: the file may be anybody's
        raise ValueError(
            f"{path} is cut short or no PyTorch checkpoint ({reason(error)}); the published file "
            f"has 622 MB, download it again from {SOURCE}"
        ) from None
    if damaged is not None:
        raise ValueError(f"{path} is damaged in {damaged}; download it again from {SOURCE}")


def _encoder_weights(
    state_dict: Mapping[str, Any], encoder: ImuEncoder, path: Path
) -> dict[str, torch.Tensor]:
    """The encoder's weights by their names in ``ImuEncoder``, each of the expected shape."""
    found = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state_dict.items()
        if isinstance(name, str) and name.startswith(PREFIX)
    }
    missing, unknown = sorted(NAMES.keys() - found), sorted(found.keys() - NAMES.keys())
    if missing or unknown:
        raise ValueError(
            f"{path} holds another encoder than the published one: under {PREFIX!r} it lacks "
            f"{missing} and has {unknown} too; only the stacked RNN of {SOURCE} can be imported"
        )
    expected = encoder.state_dict()
    weights = {}
    for name, tensor in found.items():
        shape = tuple(expected[NAMES[name]].shape)
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            got = tuple(getattr(tensor, "shape", ())) or type(tensor).__name__
            raise ValueError(f"{path}: {PREFIX}{name} should have shape {shape}, but is {got}")
        with decoding(str(path), PREFIX + name, advice=f"download it again from {SOURCE}"):
            weights[NAMES[name]] = tensor.float()
    return weights
