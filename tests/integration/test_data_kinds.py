"""Runs on shards that lack teachers, or whose windows lack all embeddings."""

import json
import math
from pathlib import Path

import pytest

from primus_scale.encoders.pretrained import load_encoder
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import losses, tiny_config, write_shards
from tests.shard_factory import make_blocks, make_windows, write_packed

NO_TEACHER_TERMS = {
    f"{source}_{modality}": 0.0 for source in ("imu", "neighbour") for modality in ("video", "text")
}


def test_imu_only_shards_train_the_self_supervised_terms(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", teachers={})
    config = tiny_config(tmp_path / "out", shards, objective={"weights": NO_TEACHER_TERMS})
    assert pretrain(config) == 0
    terms = json.loads((tmp_path / "out/train.json").read_text())["losses"]
    assert set(terms) == {"total", "imu_imu", "neighbour_imu"}
    assert terms["neighbour_imu"]["last"] > 0
    assert load_encoder(tmp_path / "out/encoder").spec.teacher_dims == {}


def test_windows_without_embeddings_leave_the_multimodal_terms_out(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", imu_only_share=1.0)
    assert pretrain(tiny_config(tmp_path / "out", shards)) == 0
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "out"))
    terms = json.loads((tmp_path / "out/train.json").read_text())["losses"]
    assert terms.keys() == {"total", "imu_imu"}  # IMU-only windows have no neighbours to learn from
    assert terms["imu_imu"]["last"] > 0


def test_objective_that_needs_an_absent_teacher_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards", teachers={}))
    with pytest.raises(ValueError, match=r"objective\.weights\.imu_video .* holds no video"):
        pretrain(config)


def test_validation_of_another_shape_is_refused_before_the_first_step(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    short = str(tmp_path / "short")
    write_packed(short, make_blocks(make_windows(16)))  # windows of 40 samples
    data = {"train": [shards], "validation": [short]}
    config = tiny_config(tmp_path / "out", shards, data=data)
    with pytest.raises(ValueError, match=r"shards and .*short do not suit one encoder: window_sam"):
        pretrain(config)
    assert not (tmp_path / "out/metrics.jsonl").exists()


def test_loss_that_stays_not_finite_stops_the_run(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    config = tiny_config(
        tmp_path / "out",
        shards,
        "objective.temperature={mode: fixed, initial: 1e-39}",  # cosines / 1e-39 overflow
        "train.max_nonfinite=2",
    )
    with pytest.raises(FloatingPointError, match="3 steps in a row, up to step 3"):
        pretrain(config)
    assert not (tmp_path / "out/encoder").exists()
