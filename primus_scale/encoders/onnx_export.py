"""Exported encoders as ONNX files for devices: features of windows, in float32 or int8.

The graph takes ``imu`` (windows, C, T) float32, as the card says, with any number of windows, and
gives ``features`` (windows, D), calibrated if the encoder is. Beside FILE lies ``FILE.json``: the
encoder's card, and what was measured (parity with torch, bytes, latency).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primus_scale.encoders.device_file import (
    FeatureGraph,
    check_installed,
    check_parity,
    difference,
    measurements,
    median_ms,
    quietly,
    torch_features,
    write_about,
)
from primus_scale.encoders.pretrained import PretrainedEncoder

INPUT, OUTPUT = "imu", "features"
ERRORS_ONLY = 3  # of onnxruntime's levels
EXPORTABLE = ("conv_stats", "transformer")  # a GRU has no graph for any number of windows


def export_onnx(
    encoder: PretrainedEncoder, out: Path, windows: np.ndarray, *, int8: bool = False
) -> dict[str, Any]:
    """Write ``encoder`` to ``out``; returns what ``FILE.json`` says of the file.

    windows: some ``(n, C, T)`` float32 windows of the data, on which parity is measured, and the
    scales of int8 activations. int8: weights and activations of matrix products.

    Raises ModuleNotFoundError where the extra ``onnx`` is not installed; ValueError where the
    encoder cannot be exported or the float32 file differs from torch.
    """
    check_installed("onnx", "onnx", "onnxscript", "onnxruntime")
    name = encoder.spec.config.name
    if name not in EXPORTABLE:
        raise ValueError(
            f"encoder {name} cannot be exported as ONNX, since its GRU takes a fixed number of "
            "windows there; export it with --executorch FILE, for one window at a time, or "
            f"pretrain one of {', '.join(EXPORTABLE)} instead"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    expected = torch_features(encoder, windows)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        path = Path(folder) / "encoder.onnx"
        _write_graph(encoder, path, windows)
        off = difference(encode_onnx(path, windows), expected)
        check_parity(out, off)
        if int8:
            path = _quantise(path, windows)
            off = difference(encode_onnx(path, windows), expected)
        measured = {
            "precision": "int8" if int8 else "float32",
            **measurements(path, off, _latency_ms(path, windows[:1])),
        }
        path.replace(out)
    return write_about(out, encoder, "onnx", measured)


def _write_graph(encoder: PretrainedEncoder, path: Path, windows: np.ndarray) -> None:
    number = torch.export.Dim("windows", min=1)
    example = torch.from_numpy(np.repeat(windows[:1], 2, axis=0))
    with quietly(), torch.no_grad():
        program = torch.onnx.export(
            FeatureGraph(encoder).eval(),
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
    with quietly():
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


def _latency_ms(path: Path, window: np.ndarray) -> float:
    """Median time of one window on one core."""
    session = _session(path, 1)
    return median_ms(lambda: session.run([OUTPUT], {INPUT: window}))
