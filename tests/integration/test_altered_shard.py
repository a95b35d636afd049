"""A shard that was altered after indexing ends all ranks in the middle of a run, without loss."""

from itertools import chain
from pathlib import Path

from primus_scale.data.epoch_order import MixedOrder
from primus_scale.data.schedule import Schedule
from primus_scale.data.shard_set import ShardSet
from tests.integration.tiny import (
    LAUNCHER,
    checkpoints,
    errors_of,
    last_step,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

STEPS, BATCH = 20, 8  # one epoch


def test_all_ranks_save_and_end_and_the_run_goes_on_with_the_shard_restored(tmp_path: Path) -> None:
    url = write_shards(tmp_path / "shards", STEPS * BATCH)
    overrides = (f"train.steps={STEPS}", "data.shuffle_blocks=1", "train.pictures_every=100")
    straight = tiny_config(tmp_path / "straight", url, *overrides)
    file = write_config(straight, tmp_path / "straight.yaml")
    assert wait_for(start_ranks(2, LAUNCHER, "--config", str(file))) == [0, 0]

    record = record_of_step(url, 12)
    whole = alter(url, record)
    output = tmp_path / "out"
    file = write_config(tiny_config(output, url, *overrides), tmp_path / "run.yaml")
    for error in errors_of(start_ranks(2, LAUNCHER, "--config", str(file))):
        assert f"error: {url}/shard-000000.tar: record {record} (bytes " in error
        assert "restore the shard" in error
    assert 0 < last_step(output) < 13
    assert checkpoints(output) == [last_step(output)], "no step is lost"

    (Path(url) / "shard-000000.tar").write_bytes(whole)
    assert wait_for(start_ranks(2, LAUNCHER, "--config", str(file))) == [0, 0]
    assert losses(output) == losses(tmp_path / "straight")


def record_of_step(url: str, step: int) -> int:
    """A record that is first read for the batch of ``step`` (from 0) of the first epoch."""
    schedule = Schedule(MixedOrder(ShardSet.open(url).windows_per_record, 1, 0), BATCH)
    records = [set(schedule.batch_rows(each).records.tolist()) for each in range(step + 1)]
    return int((records[step] - set(chain.from_iterable(records[:step]))).pop())


def alter(url: str, record: int) -> bytes:
    """Change one byte within a record of the only shard; returns the shard as it was."""
    file = Path(url) / "shard-000000.tar"
    whole = file.read_bytes()
    entry = ShardSet.open(url).index.shards[0].records[record]
    place = entry.offset + entry.length // 2
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    return whole
