"""Ranks whose wall clocks are hours apart train as they would without; object storage minds."""

from pathlib import Path

from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    LAUNCHER,
    checkpoints,
    errors_of,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)
from tests.s3_server import s3_server
from tests.shifted_clock import shifted_clock

HOUR_S = 3600


def test_losses_are_those_of_the_undisturbed_run(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    clocks = {0: shifted_clock(tmp_path, HOUR_S), 1: shifted_clock(tmp_path, -HOUR_S)}
    curves = []
    for name, own in (("undisturbed", {}), ("skewed", clocks)):
        file = write_config(tiny_config(tmp_path / name, shards), tmp_path / f"{name}.yaml")
        ranks = start_ranks(2, LAUNCHER, "--config", str(file), own=own, fresh=bool(own))
        assert wait_for(ranks) == [0, 0]
        assert checkpoints(tmp_path / name) == [6]
        curves.append(losses(tmp_path / name))
    assert len(curves[0]) == 6
    assert curves[1] == curves[0]


def test_object_storage_refuses_a_wrong_clock(tmp_path: Path) -> None:
    """S3 signs requests with the time, and servers take 15 minutes of difference."""
    with s3_server(tmp_path / "s3") as bucket:
        config = tiny_config(tmp_path / "out", write_shards(f"{bucket}/train"))
        file = str(write_config(config, tmp_path / "run.yaml"))
        clock = {0: shifted_clock(tmp_path, HOUR_S)}
        (error,) = errors_of(start_ranks(1, LAUNCHER, "--config", file, own=clock, fresh=True))
        assert f"error: cannot read {bucket}/train/index.json: Forbidden" in error
        assert pretrain(config) == 0
