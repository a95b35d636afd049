"""What a run refuses before it builds anything."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from primus_scale.data.schedule import describe_order
from primus_scale.data.shard_set import ShardSet, check_held_out
from primus_scale.objective.terms import with_heads
from primus_scale.train.run import fresh_encoder, open_data
from primus_scale.train.without_effect import without_effect
from tests.integration.tiny import (
    NEAR,
    SIGNAL,
    SIGNAL_TEACHER,
    TEACHERS,
    tiny_config,
    write_shards,
)


@pytest.mark.parametrize(
    ("name", "modality", "problem"),
    [
        ("efficientnet-lite0", "video", r"embeddings of 'random-video' \(24 wide\)"),
        ("minilm", "text", r"embeddings of no teacher; leave teachers\.text unset"),
        ("handcrafted", "signal", r"embeddings of no teacher; leave teachers\.signal unset"),
    ],
)
def test_teacher_that_is_not_that_of_the_shards_is_refused(
    tmp_path: Path, name: str, modality: str, problem: str
) -> None:
    shards = write_shards(tmp_path / "shards", teachers={"video": TEACHERS["video"]})
    config = tiny_config(tmp_path / "out", shards, f"teachers.{modality}={name}")
    with pytest.raises(ValueError, match=rf"teachers\.{modality} is '{name}', but .*{problem}"):
        open_data(config, world=1)


def test_a_third_teacher_leaves_the_encoder_as_it_is_unless_its_term_is_used(
    tmp_path: Path,
) -> None:
    """The head that video and text share, its weights included; without weight no head at all."""
    pair = {"video": TEACHERS["video"], "text": replace(TEACHERS["video"], key="text-key")}
    shards = write_shards(tmp_path / "shards", teachers={**pair, **SIGNAL_TEACHER})
    data = ShardSet.open(shards)
    for overrides, heads in (((), ["shared"]), (SIGNAL, ["shared", "signal"])):
        config = tiny_config(tmp_path / "out", shards, *overrides)
        encoder = fresh_encoder(config, data, with_heads(config.objective, data.teachers))
        without = fresh_encoder(config, data, pair)
        assert list(encoder.heads.mm) == heads
        for name, weights in without.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], weights), name


def test_teacher_of_the_shards_may_be_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    config = tiny_config(tmp_path / "out", shards, "teachers.video=random-video")
    assert open_data(config, world=1).windows == 48


def test_batches_of_sessions_need_shards_that_tell_them(tmp_path: Path) -> None:
    shuffled = write_shards(tmp_path / "shuffled")
    config = tiny_config(tmp_path / "out", shuffled, *NEAR)
    with pytest.raises(ValueError, match=rf"{shuffled} is not packed .* --order sessions"):
        open_data(config, world=1)
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "told", sessions=True), *NEAR)
    assert open_data(config, world=1).by_sessions


def test_data_without_near_windows_are_refused_before_a_run(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", sessions=True)  # windows start 2.5 s apart
    config = tiny_config(tmp_path / "out", shards, *NEAR, "objective.near.max_s=2.0")
    with pytest.raises(ValueError, match=r"1 to 2 s apart, .* start 2\.5 s after one another"):
        open_data(config, world=1)


def test_mixed_batches_of_shards_packed_by_sessions_are_told(tmp_path: Path) -> None:
    data = tiny_config(tmp_path / "out", "unread", "data.shuffle_blocks=2").data
    lines = [
        describe_order(data, ShardSet.open(write_shards(tmp_path / name, sessions=told)), 8)
        for name, told in (("shuffled", False), ("told", True))
    ]
    assert lines[0] == "batches of windows from 2 of 3 records"
    assert lines[1].startswith(lines[0] + ", which hold whole sessions")
    assert "--order shuffled" in lines[1]


def test_an_output_within_the_data_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    for output in (tmp_path / "shards", tmp_path / "shards/run", tmp_path / "x/../shards/run"):
        with pytest.raises(ValueError, match="name an"):
            open_data(tiny_config(output, shards), world=1)


def test_the_batch_that_is_advised_suits_ranks_and_sessions(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", sessions=True)
    config = tiny_config(tmp_path / "out", shards, *NEAR, "train.batch=20")
    with pytest.raises(ValueError, match=r"train\.batch=12 or 24$"):
        open_data(config, world=3)
    for batch in (12, 24):
        config = tiny_config(tmp_path / "out", shards, *NEAR, f"train.batch={batch}")
        assert open_data(config, world=3)


def test_validation_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    first, second, held = (write_shards(tmp_path / f"{n}", seed=n) for n in range(3))
    copy = shutil.copytree(held, tmp_path / "copy")
    train = ShardSet.open([first, second])
    check_held_out(train, ShardSet.open(held))
    for urls in ([held, second], [second]):
        with pytest.raises(ValueError, match=rf"{second} and {second} hold the same windows.*held"):
            check_held_out(train, ShardSet.open(urls))
    with pytest.raises(ValueError, match=rf"{held} and {copy} hold the same windows"):
        check_held_out(ShardSet.open([first, held]), ShardSet.open(str(copy)))


def test_settings_without_effect_are_told(tmp_path: Path) -> None:
    def told(*overrides: str, world: int = 1) -> list[str]:
        return [*without_effect(tiny_config(tmp_path, "unread", *overrides), world)]

    assert told() == []
    (line,) = told("optimizer.warmup_steps=6")
    assert "the learning rate only rises" in line
    filled_last = ("support.capacity=50", "support.minimum_fill=40")  # by 5 batches of 8
    assert told(*filled_last) == []
    (line,) = told("support.capacity=50", "support.minimum_fill=41")
    assert "the steps before it give 40 windows" in line
    no_neighbours = [f"objective.weights.neighbour_{m}=0" for m in ("imu", "video", "text")]
    assert told("support.capacity=50", "support.minimum_fill=41", *no_neighbours) == []
    (line,) = told("launch.workers=2")
    assert "started by python -m launch.ray_train" in line
    assert told("launch.workers=[1, 2]") == told("launch.workers=2", world=2) == []
