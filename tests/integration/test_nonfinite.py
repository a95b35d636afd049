"""A step whose loss is not finite is left out, on all ranks, and the run goes on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.config import TrainConfig
from primus_scale.data.shard_set import ShardSet
from primus_scale.distributed.group import Runtime, start_runtime, stop_runtime
from primus_scale.sample import Batch
from primus_scale.train.run import Run, build_run
from primus_scale.train.step import StepResult, train_step
from shards.write.writer import PackedShardWriter
from tests.integration.tiny import (
    LAUNCHER,
    PAPER,
    RATE_HZ,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

VARIANTS = [
    ("train.zero_stage=0",),
    ("train.zero_stage=2",),
    ("train.zero_stage=0", "train.accumulation=2"),
    ("train.zero_stage=2", "train.accumulation=2"),
]


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = start_runtime(TrainConfig(device="cpu", threads=1))
    yield runtime
    stop_runtime(runtime)


def state(run: Run) -> dict[str, torch.Tensor]:
    """All that a step may change: the weights and the support set."""
    assert run.support is not None
    support = {name: tensor.clone() for name, tensor in run.support.state_dict().items()}
    return run.engine.encoder_state() | support


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Names of what is the same in both."""
    return [name for name, tensor in ours.items() if torch.equal(tensor, theirs[name])]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_bad_step_changes_nothing_and_the_next_ones_are_as_without_it(
    tmp_path: Path, runtime: Runtime, overrides: tuple[str, ...]
) -> None:
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards"), *overrides)
    with build_run(config, runtime).batches(0) as loader:
        batches = [next(loader) for _ in range(3)]

    def step(run: Run, batch: Batch) -> StepResult:
        views = (batch.imu, batch.imu.flip(0))
        return train_step(run.engine, views, batch, run.support, config.objective, lr=1e-3)

    bad = replace(batches[1], imu=batches[1].imu.clone())
    bad.imu[3, 2, 100] = torch.nan
    spoilt, straight = build_run(config, runtime), build_run(config, runtime)
    for run in (spoilt, straight):
        assert step(run, batches[0]).finite
    before = state(spoilt)
    assert not step(spoilt, bad).finite
    assert equal(before, state(spoilt)) == list(before)
    for batch in batches[1:]:
        results = [step(run, batch) for run in (spoilt, straight)]
        assert results[0].finite
        torch.testing.assert_close(results[0].loss.total, results[1].loss.total, rtol=0, atol=0)
    assert equal(state(straight), state(spoilt)) == list(before)
    assert len(equal(before, state(spoilt))) < len(before) / 2


def write_shards_with_one_bad_window(folder: Path) -> str:
    """Shards of 48 windows, one of them finite but so large that the encoder overflows."""
    good = ShardSet.open(write_shards(folder / "good"))
    url = str(folder / "bad")
    with PackedShardWriter(url, rate_hz=RATE_HZ, teachers=good.teachers) as writer:
        for record in range(len(good)):
            block = good.read_block(record)
            imu = block.imu.copy()
            if record == 1:
                imu[5] *= np.float32(1e37)
            writer.write(replace(block, imu=imu))
    return url


@pytest.mark.parametrize("overrides", [VARIANTS[0], VARIANTS[3]])
def test_run_counts_the_bad_step_and_ends(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    shards = write_shards_with_one_bad_window(tmp_path)
    output = tmp_path / "out"
    config = tiny_config(output, shards, PAPER, "train.pictures_every=100", *overrides)  # one epoch
    file = write_config(config, tmp_path / "run.yaml")
    assert wait_for(start_ranks(2, LAUNCHER, "--config", str(file))) == [0, 0]
    summary = json.loads((output / "train.json").read_text())
    assert summary["skipped_steps"] == 1
    assert summary["steps"] == 6
    assert len(losses(output)) == 5  # JSON has no word for the sixth
    assert np.isfinite(losses(output)).all()
