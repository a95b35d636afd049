"""Encoders as ONNX files: parity with torch, any number of windows, int8, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from primus_scale.cli import main
from primus_scale.encoders.onnx_export import encode_onnx, export_onnx
from primus_scale.encoders.pretrained import load_encoder
from tests.encoder_factory import export_small_encoder, motion
from tests.shard_factory import make_windows, write_windows


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    signal = motion(50.0, 80.0).T.reshape(6, 16, 250).transpose(1, 0, 2)
    noise = np.random.default_rng(0).normal(size=signal.shape)
    return (signal + 0.5 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an encoder, and its ONNX files, as the command writes them."""
    run = tmp_path_factory.mktemp("run")
    export_small_encoder(run / "encoder", features="handcrafted")
    write_windows(str(run / "shards"), make_windows(12, samples=250))
    for name, more in (("whole.onnx", ()), ("int8.onnx", ("--int8",))):
        command = ["export", "--run", str(run), "--onnx", str(run / name), *more]
        assert main([*command, "--data", str(run / "shards")]) == 0
    return run


@pytest.mark.parametrize("number", [1, 5, 16])
def test_features_equal_those_of_torch_for_any_number_of_windows(
    exported: Path, windows: np.ndarray, number: int
) -> None:
    session = onnxruntime.InferenceSession(exported / "whole.onnx")
    (found,) = session.run(None, {"imu": windows[:number]})
    with torch.inference_mode():
        expected = load_encoder(exported)(windows[:number]).features.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_int8_is_smaller_and_close(exported: Path, windows: np.ndarray) -> None:
    whole, small = (encode_onnx(exported / name, windows) for name in ("whole.onnx", "int8.onnx"))
    assert (exported / "int8.onnx").stat().st_size < (exported / "whole.onnx").stat().st_size
    learned = np.s_[:, -128:]  # the hand-crafted ones have no weights
    off = np.abs(small - whole)[learned] / whole[learned].std(axis=0)
    assert 0 < np.median(off) < 0.3


def test_the_card_tells_size_and_latency(exported: Path) -> None:
    about = json.loads((exported / "int8.onnx.json").read_text())
    assert about["card"]["encoder"]["name"] == "conv_stats"
    assert about["onnx"]["precision"] == "int8"
    assert about["onnx"]["bytes"] == (exported / "int8.onnx").stat().st_size
    assert about["onnx"]["milliseconds_a_window"] > 0
    assert not [path for path in exported.iterdir() if path.name.startswith("tmp")]


def test_what_cannot_be_exported_is_told(
    tmp_path: Path, windows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"name": "stacked_rnn_time", "size": "S", "features": "last"}
    encoder = load_encoder(export_small_encoder(tmp_path / "encoder", **settings))
    with pytest.raises(ValueError, match="pretrain one of conv_stats, transformer"):
        export_onnx(encoder, tmp_path / "out.onnx", windows)
    assert main(["export", "--run", str(tmp_path), "--out", "x", "--int8"]) == 1
    assert "--int8 and --data are of a file for devices" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()
