"""Retrieval on held-out windows, in whole runs."""

import json
from pathlib import Path

import pytest

from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    LAUNCHER,
    ONE_AFTER_THE_OTHER,
    errors_of,
    losses,
    records,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

EVERY_SECOND = ("train.validate_every=2", "train.pictures_every=100")


def retrieval(output: Path) -> list[dict[str, float]]:
    """Recalls of each validation, as the run logged them."""
    return [
        {name: x for name, x in record.items() if name.startswith("retrieval/")}
        for record in records(output)
        if any(name.startswith("retrieval/") for name in record)
    ]


def test_recall_is_logged_and_does_not_depend_on_zero_and_ranks(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    held_out = f"data.validation=[{write_shards(tmp_path / 'held_out', windows=24, seed=1)}]"
    assert pretrain(tiny_config(tmp_path / "alone", shards, held_out, *EVERY_SECOND)) == 0
    cut = tiny_config(tmp_path / "cut", shards, held_out, *EVERY_SECOND, "train.zero_stage=3")
    file = write_config(cut, tmp_path / "cut.yaml")
    assert wait_for(start_ranks(2, ONE_AFTER_THE_OTHER, str(file))) == [0, 0]

    found = retrieval(tmp_path / "alone")
    assert len(found) == 3
    assert found[-1].keys() == {
        f"retrieval/{name}"
        for name in ("imu_to_video", "video_to_imu", "imu_to_text", "text_to_imu")
    }
    # 18 windows have embeddings: at most one of them may rank otherwise by rounding
    for ours, theirs in zip(retrieval(tmp_path / "cut"), found, strict=True):
        assert ours == pytest.approx(theirs, abs=1.5 / 18)
    summary = json.loads((tmp_path / "alone/train.json").read_text())["retrieval"]
    assert summary == {name.removeprefix("retrieval/"): x for name, x in found[-1].items()}

    heard = [json.loads((tmp_path / f"cut/validations-{r}.json").read_text()) for r in (0, 1)]
    assert heard[0] == heard[1], "every rank hears the figures of all"
    assert [step for step, _ in heard[0]] == [2, 4, 6]
    logged = losses(tmp_path / "cut")[1::2]
    assert [figures["loss"] for _, figures in heard[0]] == pytest.approx(logged, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("stage", [0, 3])
def test_held_out_windows_are_embedded_on_cuda(tmp_path: Path, stage: int) -> None:
    shards = write_shards(tmp_path / "shards")
    overrides = (
        f"data.validation=[{write_shards(tmp_path / 'held_out', windows=24, seed=1)}]",
        "train.device=cuda",
        f"train.zero_stage={stage}",
        *EVERY_SECOND,
    )
    file = write_config(tiny_config(tmp_path / "out", shards, *overrides), tmp_path / "run.yaml")
    assert wait_for(start_ranks(1, LAUNCHER, "--config", str(file))) == [0]
    assert len(retrieval(tmp_path / "out")) == 3


@pytest.mark.gpu
def test_two_ranks_on_one_gpu_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards"), "train.device=cuda")
    file = write_config(config, tmp_path / "run.yaml")
    for error in errors_of(start_ranks(2, LAUNCHER, "--config", str(file))):
        assert "each rank needs one of its own" in error
