"""Runs whose teachers work in the step, on window shards, against runs on embedded shards."""

import json
from pathlib import Path

import pytest

from primus_scale.encoders.card import read_card
from primus_scale.train.trainer import pretrain
from shards.embed.embed import embed
from tests.integration.tiny import losses, tiny_config
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import illustrate, save_model

COUNT = 16


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("clip"), "clip"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    """Folders ``windows`` and ``packed``, each with ``train`` and ``validation``."""
    root = tmp_path_factory.mktemp("data")
    for part, seed in (("train", 0), ("validation", 1)):
        source, packed = str(root / "windows" / part), str(root / "packed" / part)
        write_windows(source, illustrate(make_windows(COUNT, seed=seed, samples=250)))
        embed(source, packed, video=teacher, text=teacher, threads=1, report=str)
    return root


def run(output: Path, data: Path, validation: Path, *overrides: str) -> Path:
    """Two steps on whole epochs without augmentation, so the order of windows makes no odds."""
    folders = {"train": [str(data / "train")], "validation": [str(validation / "validation")]}
    steps = (f"train.batch={COUNT}", "train.steps=2", "support.capacity=40", "augment=[]")
    assert pretrain(tiny_config(output, "", *steps, *overrides, data=folders)) == 0
    return output


def retrieval(output: Path) -> dict[str, float]:
    return json.loads((output / "train.json").read_text(encoding="utf-8"))["retrieval"]


def test_live_run_equals_the_embedded_one(tmp_path: Path, data: Path, teacher: str) -> None:
    """Losses, retrieval on held-out windows of either kind, and the exported card."""
    names = ("teachers.mode=live", f"teachers.video={teacher}", f"teachers.text={teacher}")
    windows, packed = data / "windows", data / "packed"
    embedded = run(tmp_path / "embedded", packed, packed)
    live = run(tmp_path / "live", windows, windows, *names)
    mixed = run(tmp_path / "mixed", windows, packed, *names)

    assert len(losses(live)) == 2
    assert losses(live) == pytest.approx(losses(embedded), rel=1e-3)
    assert losses(mixed) == losses(live)
    pairs = {"imu_to_video", "video_to_imu", "imu_to_text", "text_to_imu"}
    assert retrieval(embedded).keys() == retrieval(live).keys() == retrieval(mixed).keys() == pairs
    assert retrieval(live) == retrieval(mixed)

    cards = [read_card(output / "encoder") for output in (embedded, live)]
    assert cards[0].teachers == cards[1].teachers
    assert cards[0].shared_head == cards[1].shared_head
