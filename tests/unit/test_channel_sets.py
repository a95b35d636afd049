"""Channels other than accelerometer and gyroscope: every encoder takes them, or says why not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.augment import build_augment, step_generator
from primus_scale.config import DEFAULT_AUGMENT, EncoderConfig
from primus_scale.encoders import ImuEncoder, build_encoder, check_channels
from primus_scale.encoders.card import describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.handcrafted import HandFeatures
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.encoders.stacked_rnn import InputNorm
from primus_scale.sample import WindowFormat
from primus_scale.signal.features import hand_features
from primus_scale.signal.units import GRAVITY
from primus_scale.teachers.handcrafted import HandcraftedFeatures
from tests.encoder_factory import motion

ACC = WindowFormat(("acc_x", "acc_y", "acc_z"), ("m/s2",) * 3, 250, 50.0)
ENCODERS = {
    "paper": {"name": "stacked_rnn"},
    "paper_stats": {"name": "stacked_rnn", "pooling": "stats"},
    "time": {"name": "stacked_rnn_time"},
    "time_stats": {"name": "stacked_rnn_time", "pooling": "stats", "features": "all"},
    "conv": {"name": "conv_stats", "size": "XS", "features": "handcrafted"},
}
CASES = [(name, channels) for name in ENCODERS for channels in (1, 2, 3, 5, 9)]


def small_encoder(channels: int, gravity: bool, **settings: object) -> ImuEncoder:
    torch.manual_seed(0)
    return build_encoder(
        EncoderConfig.model_validate({"gravity": gravity, "ss_dim": 8, **settings}),
        channels=channels,
        samples=250,
        rate_hz=50.0,
        teacher_dims={},
        shared=False,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


@pytest.mark.parametrize(("name", "channels"), [*CASES, ("transformer", 3)])
def test_every_encoder_learns_from_every_channel(name: str, channels: int) -> None:
    settings = ENCODERS.get(name, {"name": "transformer", "size": "S", "patch": 50})
    encoder = small_encoder(channels, gravity=channels % 3 == 0, **settings)
    imu = torch.randn(2, channels, 250, requires_grad=True)
    embedded = encoder(imu)
    embedded.ss.square().sum().backward()
    assert embedded.features.isfinite().all()
    assert (imu.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_the_paper_encoder_keeps_its_two_groups_and_has_one_a_sensor_else() -> None:
    groups = {channels: InputNorm(channels).num_groups for channels in (1, 3, 5, 6, 9, 12)}
    assert groups == {1: 1, 3: 1, 5: 1, 6: 2, 9: 3, 12: 2}


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_hand_crafted_features_of_any_channels(channels: int) -> None:
    imu = np.random.default_rng(0).standard_normal((4, channels, 250)).astype(np.float32)
    found = HandFeatures(250, 50.0)(torch.from_numpy(imu)).numpy()
    np.testing.assert_allclose(found, hand_features(imu, 50.0), atol=1e-4)
    windows = WindowFormat(tuple("abc"[:channels]), ("V",) * channels, 250, 50.0)
    teacher = HandcraftedFeatures("handcrafted", windows, "cpu", 4)
    embedded = teacher.encode([one.tobytes() for one in imu])
    assert embedded.shape == (4, found.shape[1]) and embedded.isfinite().all()


@pytest.mark.parametrize("name", ["conv", "paper_stats", "time_stats"])
@pytest.mark.parametrize("units", [("V", "V"), ("rad/s",) * 3, ("V",) * 3])
def test_gravity_without_an_accelerometer_is_refused(name: str, units: tuple[str, ...]) -> None:
    config = EncoderConfig.model_validate(ENCODERS[name])
    with pytest.raises(ValueError, match=rf"encoder.name={config.name} .* encoder.gravity=false"):
        check_channels(config, units)
    check_channels(config.model_copy(update={"gravity": False}), units)
    check_channels(config, ("m/s2",) * 3)
    check_channels(EncoderConfig(), units)  # it adds none


@pytest.mark.parametrize("units", [("V",), ("V",) * 3, ("m/s2", "m/s2", "rad/s")])
def test_what_cannot_be_turned_is_not(units: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="give augment without rotation"):
        build_augment(DEFAULT_AUGMENT, units)
    augment = build_augment(None, units)
    assert len(augment.ops) == len(DEFAULT_AUGMENT) - 1
    imu = torch.randn(4, len(units), 250)
    view = augment(imu, step_generator(0, 0, "cpu"), slice(0, 4), 4)
    assert view.shape == imu.shape and not view.equal(imu)


def test_what_can_be_turned_is() -> None:
    for units in (("m/s2",) * 3, ("m/s2",) * 3 + ("rad/s",) * 3 + ("T",) * 3):
        assert build_augment(None, units).ops == DEFAULT_AUGMENT


def test_arrays_of_an_accelerometer_alone(tmp_path: Path) -> None:
    encoder = small_encoder(3, gravity=True, name="conv_stats", size="XS")
    card = describe_encoder(
        encoder, teachers={}, data={}, objective={}, licence="none", **channels_of(ACC)
    )
    save_encoder(encoder, tmp_path, card)
    loaded, acc = load_encoder(tmp_path), motion(100.0, 20.0)[:, :3]
    expected = loaded.encode(acc, 100.0).features
    found = loaded.encode(acc / GRAVITY, 100.0, units=("g",)).features
    assert expected.shape[0] == 4
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match="are in g, not in m/s2"):
        loaded.encode(acc / GRAVITY, 100.0)
    with pytest.raises(ValueError, match=r"6 columns, .* takes 3.*channels="):
        loaded.encode(motion(100.0, 20.0), 100.0)


def channels_of(windows: WindowFormat) -> dict[str, tuple[str, ...]]:
    return {"channels": windows.channels, "units": windows.units}
