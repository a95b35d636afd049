"""A short seeded run gives the losses that stand in ``golden.json``.

A change that means to leave the numbers alone must pass. One that means to change them writes the
file anew: ``PRIMUS_WRITE_GOLDEN=1 pytest tests/integration/test_golden.py``, and says why.
"""

import json
import os
from pathlib import Path

import pytest

from primus_scale.train.trainer import pretrain
from tests.integration.tiny import NEAR, losses, tiny_config, write_shards

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3  # other processors round differently, and training spreads it


RUNS = {
    "stacked_rnn": ("encoder.name=stacked_rnn",),
    "stacked_rnn_time": ("encoder.name=stacked_rnn_time",),
    "transformer": ("encoder.name=transformer", "encoder.size=S"),
    "stacked_rnn_time with statistics": ("encoder.name=stacked_rnn_time", "encoder.pooling=stats"),
    "conv_stats with imu_near": NEAR,
}


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_the_golden_ones(tmp_path: Path, name: str) -> None:
    shards = write_shards(tmp_path / "shards", sessions=True)
    config = tiny_config(
        tmp_path / name, shards, *RUNS[name], "train.steps=5", "train.pictures_every=100"
    )
    assert pretrain(config) == 0
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("PRIMUS_WRITE_GOLDEN"):
        golden[name] = losses(tmp_path / name)
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    assert losses(tmp_path / name) == pytest.approx(golden[name], rel=TOLERANCE)
