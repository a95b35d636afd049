"""Logged figures are those of all ranks together, and rank 0 alone writes them."""

import io
import json
from pathlib import Path

import pytest
import torch

from primus_scale.distributed.collectives import rank
from primus_scale.monitor.log import METRICS_FILE
from primus_scale.monitor.monitor import Monitor
from tests.gloo import run_ranks
from tests.monitored_run import RATE_HZ, make_config, make_report


def monitor_two_steps(root: str) -> dict[str, torch.Tensor]:
    output = Path(root) / f"output{rank()}"
    config = make_config(output, "train.log_every=1")
    monitor = Monitor(output, config.train, rate_hz=RATE_HZ, stream=io.StringIO())
    for step in (1, 2):
        report = make_report(loss=10.0 * (rank() + 1), waited_s=step * (1.0 + rank()), seed=rank())
        monitor.step(step, report)
    losses = monitor.summary().get("losses", {}).get("imu_video", {})
    monitor.close()
    return {"loss": torch.tensor(losses.get("last", -1.0)), "writes": torch.tensor(output.exists())}


def test_figures_are_means_over_ranks(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    first, second = run_ranks(monitor_two_steps, 2, tmp_path / "ranks", root=str(tmp_path))
    assert first["loss"] == 15.0
    assert second["loss"] == -1.0
    assert first["writes"]
    assert not second["writes"]
    lines = (tmp_path / "output0" / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert last["speed/waited_s"] == pytest.approx(1.5)
    shares = []
    for seed in (0, 1):
        report = make_report(1.0, seed=seed)
        valid = report.neighbours.valid
        shares.append(float((report.neighbours.score * valid).sum() / valid.sum()))
    assert last["neighbours/score"] == pytest.approx(sum(shares) / 2)
