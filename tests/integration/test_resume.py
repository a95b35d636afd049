"""N+M steps straight equal N steps, a stop, and M steps, bit for bit."""

import json
from pathlib import Path

import pytest
import torch

from primus_scale.engine.zero_state import StateFiles
from tests.integration.tiny import (
    NEAR,
    ONE_AFTER_THE_OTHER,
    PAPER,
    SIGNAL,
    SIGNAL_TEACHER,
    TEACHERS,
    losses,
    start_ranks,
    tensors_of,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

HALF, WHOLE = 4, 8


def write_run(folder: Path, name: str, shards: str, steps: int, *overrides: str) -> str:
    """A configuration file of the run in ``folder/name``, up to ``steps``."""
    config = tiny_config(
        folder / name,
        shards,
        f"train.steps={steps}",
        "train.pictures_every=100",
        "optimizer.schedule=constant",  # cosine depends on the number of steps
        *overrides,
    )
    return str(write_config(config, folder / f"{name}-{steps}.yaml"))


def assert_same(ours: Path, theirs: Path) -> None:
    """All files of two checkpoints are equal, tensor by tensor, to the last bit."""
    names = json.loads((ours / "manifest.json").read_text())["files"].keys()
    assert names == json.loads((theirs / "manifest.json").read_text())["files"].keys()
    assert "support/part-00000-of-00001.safetensors" in names
    for name in names:
        if name.startswith("state/"):
            trees = [StateFiles().load(str(folder / name)) for folder in (ours, theirs)]
            assert tensors_of(trees[0])
            torch.testing.assert_close(*map(tensors_of, trees), rtol=0, atol=0)
        elif name != "encoder/card.json":  # which names the run
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize(
    ("world", "overrides"),
    [
        (1, ("train.zero_stage=0", PAPER)),
        (2, ("train.zero_stage=2", "train.accumulation=2", PAPER)),
        (2, ("train.zero_stage=3", "train.precision=bf16")),  # small: bf16 may be emulated
        (2, ("train.zero_stage=2", "train.accumulation=2", *NEAR, *SIGNAL)),
    ],
)
def test_resumed_run_equals_the_straight_one(
    tmp_path: Path, world: int, overrides: tuple[str, ...]
) -> None:
    # epochs end within batches
    teachers = {**TEACHERS, **SIGNAL_TEACHER}
    shards = write_shards(tmp_path / "shards", windows=44, sessions=True, teachers=teachers)
    files = [
        write_run(tmp_path, "straight", shards, WHOLE, *overrides),
        write_run(tmp_path, "resumed", shards, HALF, *overrides),
        write_run(tmp_path, "resumed", shards, WHOLE, *overrides),
    ]
    assert wait_for(start_ranks(world, ONE_AFTER_THE_OTHER, *files)) == [0] * world
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    assert_same(*(tmp_path / f"{n}/checkpoints/step-{WHOLE:08d}" for n in ("straight", "resumed")))


def test_resuming_on_another_number_of_ranks(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    two_ranks = [
        write_run(tmp_path, "straight", shards, WHOLE),
        write_run(tmp_path, "moved", shards, HALF),
    ]
    assert wait_for(start_ranks(2, ONE_AFTER_THE_OTHER, *two_ranks)) == [0, 0]

    alone = start_ranks(1, ONE_AFTER_THE_OTHER, write_run(tmp_path, "moved", shards, WHOLE))
    assert wait_for(alone) == [0]
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "straight"), rel=1e-3)
