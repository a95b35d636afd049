"""Exported encoders as ExecuTorch files for phones and microcontrollers: features of one window.

The program's method ``forward`` takes ``imu`` (1, C, T) float32, as the card says, and gives
``features`` (1, D), calibrated if the encoder is. Number of windows and of samples are fixed, so
encoders with a GRU have such files too. XNNPACK computes what it can, and ExecuTorch's portable
kernels the rest; they are all where the runtime is without XNNPACK. Beside FILE lies ``FILE.json``:
the encoder's card, and what was measured with ExecuTorch's runtime (parity with torch, bytes,
latency).

Tested with executorch 1.4.0 and 1.5.1 on torch 2.13.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from primus_scale.encoders.device_file import (
    FeatureGraph,
    check_installed,
    check_parity,
    difference,
    measurements,
    quietly,
    torch_features,
    write_about,
)
from primus_scale.encoders.pretrained import PretrainedEncoder

METHOD = "forward"
XNNPACK = "XnnpackBackend"  # as the runtime calls it
EXPORTED = ("conv_stats", "transformer", "stacked_rnn", "stacked_rnn_time")  # by the tests
MISSING_KERNEL = re.compile(r"Missing operator: \[\d+\] (\S+)")

# In a process of its own: the runtime's threads keep the cores that they were started on.
_MEASURE_LATENCY = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from executorch.runtime import Runtime
from primus_scale.encoders.device_file import median_ms
file, method, channels, samples = sys.argv[1:]
program = Runtime.get().load_program(file)
forward = program.load_method(method)
window = torch.randn(1, int(channels), int(samples))
print(median_ms(lambda: forward.execute([window])))
"""


def export_executorch(encoder: PretrainedEncoder, out: Path, windows: np.ndarray) -> dict[str, Any]:
    """Write ``encoder`` to ``out``; returns what ``FILE.json`` says of the file.

    windows: some ``(n, C, T)`` float32 windows, on which parity is measured.

    Raises ModuleNotFoundError where the extra ``executorch`` is not installed; ValueError where the
    encoder cannot be exported, or the file differs from torch.
    """
    check_installed("executorch", "executorch")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        path = Path(folder) / "encoder.pte"
        backend = _write_program(encoder, path)
        off = difference(encode_executorch(path, windows), torch_features(encoder, windows))
        check_parity(out, off)
        measured = {
            "precision": "float32",
            "backend": backend,
            "windows": 1,
            "samples": encoder.window_samples,
            **measurements(path, off, _latency_ms(path, encoder)),
        }
        path.replace(out)
    return write_about(out, encoder, "executorch", measured)


def encode_executorch(path: str | Path, windows: np.ndarray) -> np.ndarray:
    """Features ``(n, D)`` of windows ``(n, C, T)`` float32 by an exported file, one at a time.

    ValueError where the runtime does not load the file, with the kernels that it lacks.
    """
    with _native_messages() as messages, quietly():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(str(path))
        try:
            method = program.load_method(METHOD)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: ExecuTorch's runtime does not load it ({_lacking(messages) or error}); "
                f"encoders that it loads are {', '.join(EXPORTED)} as they are in this version"
            ) from error
        inputs = torch.from_numpy(np.ascontiguousarray(windows, dtype=np.float32))
        # Each output lies in memory of the program that the next call takes again.
        found = [method.execute([one[None]])[0].numpy().copy() for one in inputs]
    return np.concatenate(found)


def _write_program(encoder: PretrainedEncoder, path: Path) -> str:
    """Write the program; returns what computes it: ``xnnpack`` or ``portable``."""
    shape = (1, len(encoder.channels), encoder.window_samples)
    with _native_messages(), quietly(), torch.no_grad():
        from executorch.exir import to_edge_transform_and_lower

        partitioners = _xnnpack()
        program = torch.export.export(FeatureGraph(encoder).eval(), (torch.zeros(shape),))
        program = program.run_decompositions(REPLACED)
        try:
            lowered = to_edge_transform_and_lower(program, partitioner=partitioners)
            path.write_bytes(lowered.to_executorch().buffer)
        except Exception as error:  # of any kind: each pass of the exporter has its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(
                f"encoder {encoder.spec.config.name} cannot be exported for ExecuTorch "
                f"({reason[:300]}); those that can are {', '.join(EXPORTED)} as they are in this "
                "version"
            ) from error
    return "xnnpack" if partitioners else "portable"


def _xnnpack() -> list[Any]:
    """What gives parts of a program to XNNPACK; empty where it or the runtime's part is absent."""
    from executorch.runtime import Runtime

    if XNNPACK not in Runtime.get().backend_registry.registered_backend_names:
        return []
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    except ImportError:
        return []
    return [XnnpackPartitioner()]


def _sorted(
    values: torch.Tensor, dim: int = -1, descending: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    ordered = torch.topk(values, values.shape[dim], dim, largest=descending)
    return ordered.values, ordered.indices


# The runtime has no kernel that sorts, and one for the largest values in their order.
REPLACED = {torch.ops.aten.sort.default: _sorted}


def _latency_ms(path: Path, encoder: PretrainedEncoder) -> float:
    """Median time of one window on one core, as ``device_file.median_ms``."""
    sizes = (len(encoder.channels), encoder.window_samples)
    command = [sys.executable, "-c", _MEASURE_LATENCY, str(path), METHOD, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@contextlib.contextmanager
def _native_messages() -> Iterator[IO[bytes]]:
    """A file with what native code writes on stderr: notes, and which kernels are missing.

    It writes there by the descriptor or, in the runtime's bindings, by Python's ``sys.stderr``.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with (
        tempfile.TemporaryFile() as messages,
        os.fdopen(os.dup(messages.fileno()), "w", buffering=1) as text,
        contextlib.redirect_stderr(text),
    ):
        os.dup2(messages.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _lacking(messages: IO[bytes]) -> str:
    """The kernels that the runtime said it lacks."""
    messages.seek(0)
    found = MISSING_KERNEL.findall(messages.read().decode("utf-8", "replace"))
    return f"no kernel for {', '.join(sorted(set(found)))}" if found else ""
