"""The calibration of an exported encoder: as calculated by hand, and never at the cost of a run."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from primus_scale.config import CalibrationConfig, Config
from primus_scale.data import reader
from primus_scale.data.reader import load_windows, sample_windows
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders import ImuEncoder
from primus_scale.encoders.base import Embeddings
from primus_scale.encoders.card import describe_encoder, read_card
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.train import export
from primus_scale.train.export import calibrate, check_calibration, export_run
from primus_scale.train.run import fresh_encoder, open_data
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import losses, tiny_config, write_shards
from tests.shard_factory import make_blocks, make_windows, write_packed

SMALL = ("encoder.name=conv_stats", "encoder.size=XS", "train.steps=1")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """48 windows of 5 sessions in 3 records."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def make_config(shards: str, output: Path = Path("out"), *overrides: str) -> Config:
    return tiny_config(output, shards, *SMALL, *overrides)


def calibrated_export(
    config: Config, folder: Path, encoder: ImuEncoder | None = None, data: ShardSet | None = None
) -> Path:
    """An encoder with new weights, calibrated and exported."""
    shard_set = ShardSet.open(config.data.train)
    encoder = (encoder or fresh_encoder(config, shard_set, shard_set.teachers)).eval()
    teachers = {name: vars(space) for name, space in shard_set.teachers.items()}
    card = describe_encoder(encoder, teachers=teachers, data={}, objective={}, licence="none")
    save_encoder(encoder, folder, calibrate(encoder, card, config, data))
    return folder


def embed(encoder: ImuEncoder, imu: torch.Tensor) -> Embeddings:
    with torch.no_grad():
        return encoder(imu)


def by_hand(features: np.ndarray, session: list[str], kind: str) -> np.ndarray:
    """Inner products ``(n, n)`` of calibrated features: no root of a matrix is needed for them."""
    features = features.astype(np.float64)
    z = (features - features.mean(0)) / features.std(0)
    if kind == "scaling":
        return z @ z.T
    means = np.array([z[np.array(session) == name].mean(0) for name in sorted(set(session))])
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / len(means)
    width = features.shape[1]
    return z @ np.linalg.inv(between + np.trace(between) / width * np.eye(width)) @ z.T


@pytest.mark.parametrize(
    ("kind", "features"), [("scaling", "last"), ("whitening", "last"), ("whitening", "all")]
)
def test_exported_features_are_those_calculated_by_hand(
    tmp_path: Path, shards: str, kind: str, features: str
) -> None:
    settings = (f"calibration.kind={kind}", f"encoder.features={features}")
    folder = calibrated_export(make_config(shards, tmp_path, *settings), tmp_path)
    windows = load_windows(shards)
    raw = embed(load_encoder(folder, calibrated=False), windows.imu)
    given = embed(load_encoder(folder), windows.imu)
    expected = by_hand(raw.features.numpy(), [meta.session for meta in windows.metas], kind)
    found = given.features.numpy().astype(np.float64)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-3 * np.abs(expected).max())
    assert not torch.allclose(given.features, raw.features)
    assert torch.equal(given.ss, raw.ss)
    assert all(torch.equal(given.mm[name], raw.mm[name]) for name in ("video", "text"))
    assert json.loads((folder / "card.json").read_text())["calibration"] == {
        "kind": kind,
        "windows": 48,
        "sessions": 5,
        "features": raw.features.shape[1],
    }


@pytest.mark.parametrize("kind", ["scaling", "whitening"])
def test_calibration_keeps_its_digits_in_bfloat16(tmp_path: Path, shards: str, kind: str) -> None:
    config = make_config(shards, tmp_path, f"calibration.kind={kind}")
    layer = load_encoder(calibrated_export(config, tmp_path)).calibration
    assert layer is not None
    features = layer.mean + 0.01 * torch.randn(4, len(layer.mean))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = layer(features)
    weight = layer.weight.double() if layer.weight.ndim == 2 else layer.weight.double().diag()
    expected = (features.double() - layer.mean.double()) @ weight
    torch.testing.assert_close(under_autocast.double(), expected, rtol=1e-4, atol=1e-4)
    encoder = load_encoder(tmp_path).bfloat16()
    assert embed(encoder, load_windows(shards).imu).features.dtype == torch.bfloat16


def set_outputs(encoder: ImuEncoder, rows: slice) -> ImuEncoder:
    """The encoder with features ``rows`` that are 1/3 for any window."""
    last = [module for module in encoder.backbone.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        last[-1].weight[rows] = 0
        last[-1].bias[rows] = 1 / 3
    return encoder


def test_constant_features_become_zero(tmp_path: Path, shards: str) -> None:
    config = make_config(shards, tmp_path)
    data = ShardSet.open(shards)
    encoder = set_outputs(fresh_encoder(config, data, data.teachers), slice(3, 4))
    folder = calibrated_export(config, tmp_path / "one", encoder)
    features = embed(load_encoder(folder), load_windows(shards).imu).features
    assert torch.equal(features[:, 3], torch.zeros(48))
    torch.testing.assert_close(features[:, 4].std(correction=0), torch.tensor(1.0))

    collapsed = set_outputs(fresh_encoder(config, data, data.teachers), slice(None))
    folder = calibrated_export(config, tmp_path / "all", copy.deepcopy(collapsed))
    assert not embed(load_encoder(folder), load_windows(shards).imu).features.any()
    config = make_config(shards, tmp_path, "calibration.kind=whitening")
    with pytest.raises(ValueError, match=r"features are the same in all; .* calibration\.kind"):
        calibrated_export(config, tmp_path / "never", collapsed)


def test_windows_that_are_not_finite_are_left_out(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_holes(data: ShardSet, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for imu, session in sample_windows(data, most):
            imu[2, 0, 7] = np.nan
            yield imu, session

    monkeypatch.setattr(export, "sample_windows", with_holes)
    folder = calibrated_export(make_config(shards, tmp_path), tmp_path)
    assert read_card(folder).calibration.windows == 48 - 3
    features = embed(load_encoder(folder), load_windows(shards).imu).features
    kept = [row for row in range(48) if row % 16 != 2]
    torch.testing.assert_close(
        features[kept].mean(0), torch.zeros(features.shape[1]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("least", "records"), [(256, 10), (5, 5), (2, 3)])
def test_a_sample_is_spread_over_records_and_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, records: int
) -> None:
    write_packed(str(tmp_path), make_blocks(make_windows(40), block=4))
    monkeypatch.setattr(reader, "_MANY_RECORDS", least)
    data, whole = ShardSet.open(str(tmp_path)), load_windows(str(tmp_path))
    parts = list(sample_windows(data, 12))
    assert len(parts) == records
    of_these = [4 * (10 * n // records) + row for n in range(records) for row in range(4)]
    rows = [of_these[n * len(of_these) // 12] for n in range(12)]
    assert np.array_equal(np.concatenate([imu for imu, _ in parts]), whole.imu[rows].numpy())
    session = np.concatenate([session for _, session in parts])
    assert np.array_equal(session, whole.batch.session[rows].numpy())
    assert sum(len(session) for _, session in sample_windows(data, 1000)) == 40


def test_whitening_of_one_session_is_refused_before_a_run(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", windows=10)
    config = make_config(one, tmp_path / "out", "calibration.kind=whitening")
    with pytest.raises(ValueError, match=r"are of one; set calibration\.kind=scaling"):
        open_data(config, world=1)
    open_data(make_config(one), world=1)
    several = write_shards(tmp_path / "several", windows=20)
    check_calibration(config.calibration, ShardSet.open(several))


def test_sessions_are_read_only_up_to_the_second(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(data: ShardSet, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from sample_windows(data, most)
        raise AssertionError("all was read")

    monkeypatch.setattr(export, "sample_windows", endless)
    check_calibration(CalibrationConfig(kind="whitening"), ShardSet.open(shards))


def test_a_run_ends_with_a_calibrated_encoder(tmp_path: Path, shards: str) -> None:
    config = make_config(shards, tmp_path, "train.precision=bf16")
    assert pretrain(config) == 0
    first, imu = losses(tmp_path), load_windows(shards).imu
    assert read_card(tmp_path / "encoder").calibration.kind == "scaling"
    features = embed(load_encoder(tmp_path / "encoder"), imu).features
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(features.shape[1]))
    (checkpoint,) = tmp_path.glob("checkpoints/step-*/encoder")
    assert read_card(checkpoint).calibration.kind == "none"
    raw = embed(load_encoder(tmp_path / "encoder", calibrated=False), imu)
    assert torch.equal(raw.features, embed(load_encoder(checkpoint), imu).features)

    # The same command with another kind trains no step, and calibrates anew.
    other = make_config(shards, tmp_path, "train.precision=bf16", "calibration.kind=whitening")
    assert pretrain(other) == 0
    assert losses(tmp_path) == first
    assert read_card(tmp_path / "encoder").calibration.kind == "whitening"

    none = make_config(shards, tmp_path, "calibration.kind=none", "data.train=[/nowhere]")
    export_run(tmp_path, tmp_path / "raw", none)
    assert torch.equal(embed(load_encoder(tmp_path / "raw"), imu).features, raw.features)


def test_a_run_whose_calibration_fails_keeps_its_encoder(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def lost(data: ShardSet, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        raise ConnectionError("the storage is gone")

    monkeypatch.setattr(export, "sample_windows", lost)
    config = make_config(shards, tmp_path)
    assert pretrain(config) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path}/encoder is exported without calibration: " in said
    assert "the storage is gone" in said
    assert read_card(tmp_path / "encoder").calibration.kind == "none"
    with pytest.raises(ValueError, match=r"the storage is gone.*set calibration\.kind=none"):
        export_run(tmp_path, tmp_path / "again", config)
    monkeypatch.undo()
    assert pretrain(config) == 0
    assert read_card(tmp_path / "encoder").calibration.kind == "scaling"


def test_data_of_another_window_are_refused(tmp_path: Path, shards: str) -> None:
    write_packed(str(tmp_path / "short"), make_blocks(make_windows(20)))
    other = ShardSet.open(str(tmp_path / "short"))
    with pytest.raises(ValueError, match=r"short: window_samples is 40, but the encoder takes 250"):
        calibrated_export(make_config(shards), tmp_path / "never", data=other)
