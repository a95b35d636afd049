"""What a run refuses before it builds anything."""

from pathlib import Path

import pytest

from primus_scale.train.run import open_data
from tests.integration.tiny import TEACHERS, tiny_config, write_shards


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
