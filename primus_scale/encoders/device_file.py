"""What the files of an encoder for devices share: graph, check, and the measurements in FILE.json.

``onnx_export`` and ``executorch_export`` write them. Shapes: n windows, C channels, T samples, D
features.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.encoders.pretrained import PretrainedEncoder
from primus_scale.signal.units import GRAVITY
from primus_scale.storage.files import check_output_file, write_atomically

PARITY = 1e-4  # most difference from torch, over the largest feature
MEASURED_WINDOWS = 256  # for parity and for int8 activations; more do not change them
LATENCY_RUNS = 50
DRAWN_WINDOWS = 32


class FeatureGraph(nn.Module):
    """Windows to features, without the heads."""

    def __init__(self, encoder: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Features ``(n, D)`` of imu ``(n, C, T)``."""
        features: torch.Tensor = self.encoder(imu).features
        return features


def drawn_windows(encoder: PretrainedEncoder) -> np.ndarray:
    """Windows ``(n, C, T)`` float32 of noise, with gravity, to hold a file against torch.

    For encoders whose data are not here. They do not replace data where scales are fitted.
    """
    shape = (DRAWN_WINDOWS, len(encoder.channels), encoder.window_samples)
    windows = np.random.default_rng(0).normal(size=shape)
    for number, (name, unit) in enumerate(zip(encoder.channels, encoder.units, strict=True)):
        if unit == "m/s2" and name.endswith("_z"):
            windows[:, number] += GRAVITY
    return windows.astype(np.float32)


def torch_features(encoder: PretrainedEncoder, windows: np.ndarray) -> np.ndarray:
    """Features ``(n, D)`` float32 of windows by the encoder itself."""
    with torch.inference_mode():
        return np.asarray(encoder(windows).features.float().cpu().numpy())


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a feature from torch's, over the largest feature."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check_parity(out: Path, found: float) -> None:
    """ValueError where the features of a float32 file differ from torch's."""
    if not found <= PARITY:  # NaN too
        raise ValueError(
            f"{out}: features differ from torch's by {found:.1e} of the largest, more than "
            f"{PARITY:.0e}; this encoder is not exported"
        )


def check_device_file(out: Path, suffix: str, what: str) -> None:
    """Check before the work that the file may be written; raises as ``check_output_file``."""
    check_output_file(out, (suffix,), what, lambda path: _about_file(path).is_file())


def check_installed(extra: str, *packages: str) -> None:
    """ModuleNotFoundError that names the missing package and its extra, before the work."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"this file needs {package}, which is not installed: "
                f"pip install 'primus-scale[{extra}]'",
                name=package,
            )


def median_ms(call: Callable[[], object]) -> float:
    """Median time of a call on one core, in processor time: other programs do not change it."""
    taken = []
    for _ in range(LATENCY_RUNS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return 1000 * float(np.median(taken))


def measurements(path: Path, difference: float, milliseconds: float) -> dict[str, Any]:
    """What is measured of every file: parity with torch, size, and latency on one core."""
    return {
        "difference": float(f"{difference:.3g}"),
        "bytes": path.stat().st_size,
        "milliseconds_a_window": float(f"{milliseconds:.3g}"),
        "cores": 1,
    }


def write_about(
    out: Path, encoder: PretrainedEncoder, kind: str, measured: dict[str, Any]
) -> dict[str, Any]:
    """Write ``FILE.json``: the encoder's card, and under ``kind`` what was measured."""
    about = {"card": encoder.card.model_dump(mode="json"), kind: measured}
    write_atomically(_about_file(out), json.dumps(about, indent=2) + "\n")
    return measured


def _about_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without an exporter's notes on packages that are not needed and on its own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
