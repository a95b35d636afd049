"""DeepSpeed's files: restored the same by way of the universal form, and nothing is unpickled."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from primus_scale.config import Config
from primus_scale.distributed.group import start_runtime, stop_runtime
from primus_scale.engine.zero_state import (
    STATE,
    StateFiles,
    convert_state,
    load_converted,
    save_state,
)
from primus_scale.train.run import Run, build_run
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import tensors_of, tiny_config, write_shards


class Payload:
    """What unpickling would run: it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self._mark,)


@pytest.fixture(autouse=True)
def _linear_stays_that_of_torch() -> Iterator[None]:
    """DeepSpeed's stage 3 replaces it for the whole process; compiled tests fail with the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", torch.nn.functional.linear)
        yield


def train(folder: Path, stage: int) -> tuple[Config, Path]:
    """Two steps of a run with ZeRO ``stage``; its configuration and checkpoint."""
    shards = write_shards(folder / "shards", windows=16)
    config = tiny_config(folder / "out", shards, "train.steps=2", f"train.zero_stage={stage}")
    assert pretrain(config) == 0
    return config, folder / "out/checkpoints/step-00000002"


@contextmanager
def fresh_run(config: Config) -> Iterator[Run]:
    runtime = start_runtime(config.train)
    try:
        run = build_run(config, runtime)
        yield run
        run.close()
    finally:
        stop_runtime(runtime)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_state_is_the_same_after_conversion(tmp_path: Path, stage: int) -> None:
    config, checkpoint = train(tmp_path, stage)
    again = tmp_path / "again"
    with fresh_run(config) as run:
        convert_state(checkpoint, tmp_path / "converted")
        load_converted(run.engine, tmp_path / "converted")
        groups = run.engine.deepspeed.optimizer.param_groups
        assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
        states = run.engine.deepspeed.basic_optimizer.state.values()
        assert len({state["step"].data_ptr() for state in states}) == len(groups), "own counts"
        assert save_state(run.engine, again).error is None
    files = sorted((checkpoint / STATE).iterdir())
    assert len(files) == 2
    for file in files:
        before = tensors_of(StateFiles().load(str(file)))
        after = tensors_of(StateFiles().load(str(again / STATE / file.name)))
        assert len(before) > 4
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_conversion_unpickles_nothing(tmp_path: Path) -> None:
    config, checkpoint = train(tmp_path, 1)
    mark, converted = tmp_path / "mark", tmp_path / "converted"
    convert_state(checkpoint, converted)
    torch.save(Payload(mark), next((converted / STATE / "zero").glob("encoder*/fp32.pt")))
    with fresh_run(config) as run, pytest.raises(pickle.UnpicklingError, match="Weights only"):
        load_converted(run.engine, converted)

    for file in (checkpoint / STATE).iterdir():
        content = file.read_bytes()
        torch.save(Payload(mark), file)
        with pytest.raises(pickle.UnpicklingError, match="Weights only"):
            convert_state(checkpoint, tmp_path / file.name)
        file.write_bytes(content)
    assert not mark.exists()
