"""An encoder of IMU on windows of other sensors: what it keeps, and tasks of PPG and of EMG."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from primus_scale.cli import main
from primus_scale.encoders.adapt import adapt_encoder
from primus_scale.encoders.pretrained import PretrainedEncoder, load_encoder
from primus_scale.sample import WindowFormat
from tests.few_shot_task import few_penalties  # noqa: F401
from tests.folder_factory import write_csv

PPG = WindowFormat(("ppg",), ("V",), 250, 64.0)
RATE_HZ, SECONDS = 64.0, 40.0
BEATS_HZ = {"rest": 1.1, "exercise": 2.3}
NOISE_V = {"rest": 0.02, "exercise": 0.4}  # of a muscle


@pytest.fixture(scope="module")
def demo() -> PretrainedEncoder:
    return load_encoder("demo")


def test_an_adapted_encoder_keeps_what_does_not_see_the_channels(demo: PretrainedEncoder) -> None:
    adapted, kept = adapt_encoder(demo, PPG, [0.5], [0.1])
    assert kept > 0.9
    assert adapted.channels == ("ppg",)
    assert adapted.rate_hz == 64
    theirs, ours = demo.state_dict(), adapted.state_dict()
    names = {name: name.replace("backbone.", "backbone.learned.") for name in ours}
    changed = {name for name in ours if not torch.equal(ours[name], _of(theirs, names[name], name))}
    assert changed == {
        *("backbone.standardise.mean", "backbone.standardise.std"),
        *("backbone.blocks.0.0.weight", "backbone.pooled_norm.weight"),
        *("backbone.pooled_norm.bias", "backbone.head.0.weight"),
    }
    first = ours["backbone.head.0.weight"]
    assert first[:, 2:].equal(theirs["backbone.learned.head.0.weight"][:, -first.shape[1] + 2 :])
    assert ours["backbone.blocks.0.0.weight"].shape[1] == 1
    again, _ = adapt_encoder(demo, PPG, [0.5], [0.1])
    window = torch.randn(2, 1, 250)
    with torch.inference_mode():
        assert again.eval()(window).features.equal(adapted.eval()(window).features)


def _of(weights: dict[str, torch.Tensor], *names: str) -> torch.Tensor:
    return next(weights[name] for name in names if name in weights)


def write_source(folder: Path, channels: dict[str, str]) -> None:
    """Recordings of five people at rest and at exercise, in the layout of docs/folder.md."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    for number in range(5):
        for label, beats_hz in BEATS_HZ.items():
            place = folder / f"p{number}" / label
            place.mkdir(parents=True)
            pulse = 0.2 * np.sin(2 * np.pi * (beats_hz + 0.05 * number) * time_s)
            columns = {"t": time_s}
            for channel in channels:
                noise = NOISE_V[label] if channel.startswith("emg") else 0.02
                columns[channel] = channel.startswith("ppg") * pulse + noise * rng.standard_normal(
                    len(time_s)
                )
            write_csv(place / "sensor.csv", columns)
    sensor = {"file": "sensor.csv", "columns": {name: name for name in channels}, "unit": "V"}
    device = {
        **{"name": "band", "placement": "left wrist"},
        "sensors": [sensor | {"time": {"column": "t", "unit": "s"}}],
    }
    described = {"recordings": "{person}/{label}", "label": "{label}", "devices": [device]}
    (folder / "recording.yaml").write_text(yaml.safe_dump(described))
    windows = {"channels": channels, "rate_hz": RATE_HZ, "window_s": 250 / RATE_HZ}
    (folder / "windows.yaml").write_text(yaml.safe_dump(windows, sort_keys=False))


@pytest.mark.usefixtures("few_penalties")
def test_an_encoder_of_imu_is_fine_tuned_on_ppg_and_emg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = {"ppg": "V", "emg_1": "V", "emg_2": "V"}  # three, but no triplet of a vector
    write_source(tmp_path / "raw", channels)
    shards = str(tmp_path / "shards")
    build = ["shards", "build", "folder", "--src", str(tmp_path / "raw"), "--out", shards]
    assert main([*build, "--frames", "0", "--workers", "1"]) == 0
    command = ["evaluate", "--encoder", "demo", "--data", shards]
    settings = ["k=[2]", "draws=1", "trained_draws=1", "steps=20", "lrs=[3.0e-3]", "threads=1"]
    arms = "arms=[pretrained_finetuned,scratch,minirocket]"
    ends = ["--test-people", "0.4", "--out", str(tmp_path / "out"), *settings, arms]
    assert main([*command, *ends]) == 1
    assert "but the encoder takes" in capsys.readouterr().err
    assert main([*command, *ends, "adapt=true"]) == 0
    printed = capsys.readouterr().out
    assert "input made anew for ppg, emg_1, emg_2 at 64 Hz: 9" in printed
    assert "pretrained, fine-tuned - same encoder from scratch" in printed
    assert "pretrained, fine-tuned" in (tmp_path / "out/report.md").read_text()
