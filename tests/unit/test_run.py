"""What a run refuses before it builds anything."""

from pathlib import Path

import pytest

from primus_scale.data.schedule import describe_order
from primus_scale.data.shard_set import ShardSet
from primus_scale.train.run import open_data
from tests.integration.tiny import NEAR, TEACHERS, tiny_config, write_shards


@pytest.mark.parametrize(
    ("name", "modality", "problem"),
    [
        ("efficientnet-lite0", "video", r"embeddings of 'random-video' \(24 wide\)"),
        ("minilm", "text", r"embeddings of no teacher; leave teachers\.text unset"),
    ],
)
def test_teacher_that_is_not_that_of_the_shards_is_refused(
    tmp_path: Path, name: str, modality: str, problem: str
) -> None:
    shards = write_shards(tmp_path / "shards", teachers={"video": TEACHERS["video"]})
    config = tiny_config(tmp_path / "out", shards, f"teachers.{modality}={name}")
    with pytest.raises(ValueError, match=rf"teachers\.{modality} is '{name}', but .*{problem}"):
        open_data(config, world=1)


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
