"""Encoders as ExecuTorch files: parity with torch in ExecuTorch's own runtime, and what is told.

executorch is an extra that neither `make setup` nor .ci/run installs (200 MB for one test); the
tests that need it are skipped without it, in CI too. docs/encoders.md says with what they were run.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.cli import main
from primus_scale.encoders import executorch_export
from primus_scale.encoders.executorch_export import (
    XNNPACK,
    export_executorch,
)
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.signal.units import GRAVITY
from tests.encoder_factory import export_small_encoder

INSTALLED = importlib.util.find_spec("executorch") is not None
needs_executorch = pytest.mark.skipif(
    not INSTALLED, reason="executorch is not installed: pip install 'primus-scale[executorch]'"
)
pytestmark = pytest.mark.filterwarnings("default")  # the exporter's own, of torch and torchao
ENCODERS = (
    {"name": "conv_stats", "size": "XS", "features": "handcrafted"},
    {"name": "conv_stats", "size": "XS", "features": "all"},
    {"name": "transformer", "size": "S", "features": "last", "patch": 25},
    {"name": "stacked_rnn", "features": "last"},
    {"name": "stacked_rnn_time", "features": "last"},
)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    drawn = np.random.default_rng(3).normal(size=(4, 6, 250))
    drawn[:, 1] += GRAVITY
    return drawn.astype(np.float32)


@needs_executorch
@pytest.mark.parametrize("settings", ENCODERS, ids=lambda s: f"{s['name']}-{s['features']}")
def test_features_equal_those_of_torch(
    settings: dict[str, object], windows: np.ndarray, tmp_path: Path
) -> None:
    from executorch.runtime import Runtime

    encoder = load_encoder(export_small_encoder(tmp_path / "encoder", **settings))
    about = export_executorch(encoder, tmp_path / "x.pte", windows[:2])
    program = Runtime.get().load_program(tmp_path / "x.pte")
    method = program.load_method("forward")
    for window in torch.from_numpy(windows):
        (found,) = method.execute([window[None]])
        with torch.inference_mode():
            expected = encoder(window[None]).features
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert about["bytes"] == (tmp_path / "x.pte").stat().st_size
    assert about["backend"] == "xnnpack"
    assert XNNPACK.encode() in (tmp_path / "x.pte").read_bytes()


@needs_executorch
def test_the_command_writes_file_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo.pte"
    assert main(["export", "--run", "demo", "--executorch", str(out)]) == 0
    assert re.search(r"float32, xnnpack, [\d.]+ MB, [\d.]+ ms a window", capsys.readouterr().out)
    about = json.loads((tmp_path / "demo.pte.json").read_text())
    assert about["card"]["encoder"]["name"] == "conv_stats"
    measured = about["executorch"]
    assert (measured["windows"], measured["samples"], measured["cores"]) == (1, 250, 1)
    assert measured["difference"] <= 1e-4
    assert measured["milliseconds_a_window"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.pte", "demo.pte.json"]


@needs_executorch
def test_portable_kernels_where_xnnpack_is_absent(
    windows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executorch_export, "XNNPACK", "a backend that is not there")
    encoder = load_encoder(export_small_encoder(tmp_path / "encoder"))
    assert export_executorch(encoder, tmp_path / "x.pte", windows)["backend"] == "portable"
    assert XNNPACK.encode() not in (tmp_path / "x.pte").read_bytes()


@needs_executorch
def test_a_missing_kernel_is_named(
    windows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is without the replacement of sorting."""
    monkeypatch.setattr(executorch_export, "REPLACED", {})
    settings = {"features": "handcrafted"}
    encoder = load_encoder(export_small_encoder(tmp_path / "encoder", **settings))
    with pytest.raises(ValueError, match=r"no kernel for aten::sort.*conv_stats, transformer"):
        export_executorch(encoder, tmp_path / "x.pte", windows)
    assert not (tmp_path / "x.pte").exists()


@needs_executorch
def test_what_the_exporter_refuses_is_told(
    windows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sorting, which is none of the operators that its programs may have."""

    def stable(values: torch.Tensor, dim: int = -1, descending: bool = False) -> object:
        return torch.ops.aten.sort.stable(values, stable=True, dim=dim, descending=descending)

    monkeypatch.setattr(executorch_export, "REPLACED", {torch.ops.aten.sort.default: stable})
    settings = {"features": "handcrafted"}
    encoder = load_encoder(export_small_encoder(tmp_path / "encoder", **settings))
    with pytest.raises(ValueError, match=r"cannot be exported.*sort\.stable.*conv_stats"):
        export_executorch(encoder, tmp_path / "x.pte", windows)


@pytest.mark.skipif(INSTALLED, reason="executorch is installed")
def test_without_executorch_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--run", "demo", "--executorch", str(tmp_path / "x.pte")]) == 1
    assert "pip install 'primus-scale[executorch]'" in capsys.readouterr().err


def test_largest_values_in_their_order_are_sorted_ones() -> None:
    """What replaces sorting in the program, on rows with equal values."""
    rows = torch.randint(0, 20, (2, 3, 50), generator=torch.Generator().manual_seed(0)).double()
    for dim, descending in ((2, False), (1, True)):
        found, place = executorch_export._sorted(rows, dim, descending)
        assert torch.equal(found, torch.sort(rows, dim, descending).values)
        assert torch.equal(rows.gather(dim, place), found)


def test_missing_kernels_are_read_from_the_messages_of_the_runtime() -> None:
    with executorch_export._native_messages() as messages:
        messages.write(b"[method.cpp:819] Missing operator: [17] aten::sort.values\n" * 2)
        messages.write(b"[method.cpp:819] Missing operator: [3] aten::median\n")
        assert (
            executorch_export._lacking(messages) == "no kernel for aten::median, aten::sort.values"
        )
