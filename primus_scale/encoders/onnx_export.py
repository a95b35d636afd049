"""Exported encoders as ONNX files for devices: features of windows, in float32 or int8.

The graph takes ``imu`` (windows, C, T) float32, as the card says, with any number of windows, and
gives ``features`` (windows, D), calibrated if the encoder is. Beside FILE lies ``FILE.json``: the
encoder's card, and what was measured (parity with torch, bytes, latency).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.encoders.pretrained import PretrainedEncoder

INPUT, OUTPUT = "imu", "features"
PARITY = 1e-4  # most difference from torch, over the largest feature
CALIBRATION_WINDOWS = 256  # of the int8 activations; more do not change them
LATENCY_RUNS = 50
ERRORS_ONLY = 3  # of onnxruntime's levels
EXPORTABLE = ("conv_stats", "transformer")  # a GRU has no graph for any number of windows


class _Features(nn.Module):
    """Windows to features, without the heads."""

    def __init__(self, encoder: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(imu).features
        return features


def export_onnx(
    encoder: PretrainedEncoder, out: Path, windows: np.ndarray, *, int8: bool = False
) -> dict[str, Any]:
    """Write ``encoder`` to ``out``; returns what ``FILE.json`` says of the file.

    windows: some ``(n, C, T)`` float32 windows of the data, on which parity is measured, and the
    scales of int8 activations. int8: weights and activations of matrix products.

    Raises ModuleNotFoundError where the extra ``onnx`` is not installed; ValueError where the
    encoder cannot be exported, there are no windows, or the float32 file differs from torch.
    """
    _check_installed()

    name = encoder.spec.config.name
    if name not in EXPORTABLE:
        raise ValueError(
            f"encoder {name} cannot be exported as ONNX, since its GRU takes a fixed number of "
            f"windows there; pretrain one of {', '.join(EXPORTABLE)} instead"
        )
    if not len(windows):
        raise ValueError("there are no windows to measure the exported encoder on; give --data")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        path = Path(folder) / "encoder.onnx"
        _write_graph(encoder, path, windows)
        difference = _difference(encoder, path, windows)
        if difference > PARITY:
            raise ValueError(
                f"{out}: features differ from torch's by {difference:.1e} of the largest, more "
                f"than {PARITY:.0e}; this encoder is not exported"
            )
        if int8:
            path = _quantise(path, windows)
            difference = _difference(encoder, path, windows)
        measured = {
            "precision": "int8" if int8 else "float32",
            "difference": float(f"{difference:.3g}"),
            "bytes": path.stat().st_size,
            "milliseconds_a_window": float(f"{_latency_ms(path, windows[:1]):.3g}"),
            "cores": 1,
        }
        path.replace(out)
    about = {"card": encoder.card.model_dump(mode="json"), "onnx": measured}
    out.with_name(f"{out.name}.json").write_text(json.dumps(about, indent=2) + "\n")
    return measured


def _check_installed() -> None:
    """Tell of a missing extra before the work."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"ONNX files need {package}, which is not installed: "
                "pip install 'primus-scale[onnx]'",
                name=package,
            )


def _write_graph(encoder: PretrainedEncoder, path: Path, windows: np.ndarray) -> None:
    number = torch.export.Dim("windows", min=1)
    example = torch.from_numpy(np.repeat(windows[:1], 2, axis=0))
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            _Features(encoder).eval(),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"imu": {0: number}},
            verbose=False,
            optimize=False,  # onnxscript 0.7 would drop the addition of 1e-8 as that of zero
        )
    assert program is not None
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's notes on packages that are not needed and on its own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _quantise(path: Path, windows: np.ndarray) -> Path:
    """The same graph with int8 matrix products, whose activations are scaled by ``windows``."""
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Windows(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(np.array_split(windows, -(-len(windows) // 32)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    prepared, quantised = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    with _quietly():
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            Windows(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],  # convolutions are small, and lose a point
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
    return quantised


def encode_onnx(path: str | Path, windows: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Features ``(n, D)`` of windows ``(n, C, T)`` float32 by an exported ONNX file."""
    (features,) = _session(Path(path), threads).run([OUTPUT], {INPUT: windows})
    return np.asarray(features)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(encoder: PretrainedEncoder, path: Path, windows: np.ndarray) -> float:
    """The largest difference of a feature from torch's, over the largest feature."""
    with torch.inference_mode():
        expected = encoder(windows).features.float().cpu().numpy()
    return float(np.abs(encode_onnx(path, windows) - expected).max() / np.abs(expected).max())


def _latency_ms(path: Path, window: np.ndarray) -> float:
    """Median time of one window on one core."""
    session, taken = _session(path, 1), []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        session.run([OUTPUT], {INPUT: window})
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))
