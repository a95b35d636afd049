"""Augmentations: what each does to a window, and that views do not depend on the ranks."""

import math

import numpy as np
import pytest
import torch

from primus_scale.augment import build_augment, step_generator
from primus_scale.config import AugmentOp, Config, DataConfig, EncoderConfig
from primus_scale.config.augment import (
    ChannelDropout,
    Jitter,
    Negation,
    Permutation,
    Rotation,
    Scaling,
    TimeFlip,
    TimeWarp,
)
from primus_scale.encoders import build_encoder

CHANNELS, SAMPLES = 6, 250
ALL_OPS = (
    Scaling,
    Jitter,
    Permutation,
    Rotation,
    TimeWarp,
    TimeFlip,
    Negation,
    ChannelDropout,
)
DEFAULT_OPS = Config(name="x", output="x", data=DataConfig(train=("x",))).augment


def make_imu(batch: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 5 + torch.randn(batch, CHANNELS, SAMPLES, generator=generator)


def make_ramp(batch: int) -> torch.Tensor:
    """Each sample's value is its index, so a view shows where its samples come from."""
    return torch.arange(SAMPLES, dtype=torch.float32).expand(batch, CHANNELS, SAMPLES)


def augmented(imu: torch.Tensor, *ops: AugmentOp, step: int = 0) -> torch.Tensor:
    whole = slice(0, len(imu))
    return build_augment(ops)(imu, step_generator(7, step, imu.device), whole, len(imu))


@pytest.mark.parametrize("op", ALL_OPS)
def test_probability_chooses_rows(op: type) -> None:
    imu = make_imu(400)
    original = imu.clone()
    assert torch.equal(augmented(imu, op(p=0.0)), imu)
    changed = (augmented(imu, op(p=0.5)) != imu).flatten(1).any(dim=1).float().mean()
    floor = 0.3 if op is ChannelDropout else 0.42  # 38 % of rows lose no channel at rate 0.15
    assert floor - 0.05 < changed < 0.58
    assert torch.equal(imu, original), "the input was modified in place"


@pytest.mark.parametrize("world", [2, 4])
def test_views_do_not_depend_on_the_number_of_ranks(world: int) -> None:
    ops = (*DEFAULT_OPS, TimeFlip(), Negation())
    imu = make_imu(16)
    single = augmented(imu, *ops)
    rows_per_rank = len(imu) // world
    for rank in range(world):
        rows = slice(rank * rows_per_rank, (rank + 1) * rows_per_rank)
        local = build_augment(ops)(imu[rows], step_generator(7, 0, "cpu"), rows, len(imu))
        torch.testing.assert_close(local, single[rows])


def test_a_step_has_its_own_views_and_repeats_them() -> None:
    imu = make_imu()
    assert torch.equal(augmented(imu, *DEFAULT_OPS), augmented(imu, *DEFAULT_OPS))
    assert not torch.allclose(augmented(imu, *DEFAULT_OPS), augmented(imu, *DEFAULT_OPS, step=1))
    seeds = [step_generator(*pair, "cpu").initial_seed() for pair in ((1, 12), (11, 2), (2, 11))]
    assert len(set(seeds)) == 3


def test_operations_run_in_the_order_of_the_configuration() -> None:
    imu = make_imu()
    flipped = augmented(imu, TimeFlip(p=1.0))
    dropped = augmented(imu, ChannelDropout(rate=0.5), TimeFlip(p=1.0))
    assert torch.equal(dropped[dropped != 0], flipped[dropped != 0])
    one = augmented(imu, Scaling(sd=0.3), Jitter(sd=0.5))
    other = augmented(imu, Jitter(sd=0.5), Scaling(sd=0.3))
    assert not torch.allclose(one, other)


def test_empty_list_changes_nothing() -> None:
    imu = make_imu()
    assert torch.equal(augmented(imu), imu)


def test_scaling_has_one_factor_a_channel() -> None:
    imu = make_imu(2000) + 10  # far from zero, so that the factor can be divided out
    factors = augmented(imu, Scaling(sd=0.2)) / imu
    torch.testing.assert_close(factors, factors[:, :, :1].expand_as(factors))
    each = factors[:, :, 0]
    assert abs(each.mean() - 1) < 0.01
    assert abs(each.std() - 0.2) < 0.01
    between = np.corrcoef(each.T.numpy()) - np.eye(CHANNELS)
    assert np.abs(between).max() < 0.1, "channels share their factors"


def test_jitter_is_relative_to_each_channel() -> None:
    deviations = torch.tensor([10.0, 1.0, 0.1, 5.0, 0.01, 0.0]).view(1, 6, 1)
    generator = torch.Generator().manual_seed(3)
    imu = 9.81 + deviations * torch.randn(300, CHANNELS, SAMPLES, generator=generator)
    noise = (augmented(imu, Jitter(sd=0.1)) - imu).std(dim=(0, 2))
    torch.testing.assert_close(noise, 0.1 * deviations.flatten(), rtol=0.03, atol=1e-5)


@pytest.mark.parametrize(("cuts", "all_apart"), [(1, 1 / 2), (4, 53 / 120), (9, 0.405)])
def test_permutation_reorders_segments(cuts: int, all_apart: float) -> None:
    batch = 8000  # far more rows than a window has places to cut
    view = augmented(make_ramp(batch), Permutation(cuts=cuts, p=1.0))
    assert torch.equal(view.sort(dim=-1).values, make_ramp(batch)), "samples were lost or repeated"
    assert torch.equal(view, view[:, :1].expand_as(view)), "channels were cut differently"
    breaks = (view[:, 0].diff(dim=-1) != 1).sum(dim=-1)
    assert breaks.max() <= cuts
    # all_apart: share of the orders of cuts + 1 segments in which no two neighbours stay together.
    places = SAMPLES - 1
    no_empty_segment = math.perm(places, cuts) / places**cuts
    expected = all_apart * no_empty_segment
    assert (breaks == cuts).float().mean() == pytest.approx(expected, abs=0.025)


def test_permutation_can_cut_anywhere_and_move_any_segment() -> None:
    view = augmented(make_ramp(20_000), Permutation(cuts=1, p=1.0))[:, 0]
    first_of_cut_rows = view[view[:, 0] != 0, 0]
    assert set(first_of_cut_rows.int().tolist()) == set(range(1, SAMPLES))


def test_time_warp_replays_at_varying_speed() -> None:
    op = TimeWarp(sd=0.3)
    position = augmented(make_ramp(500), op)[:, 0]
    assert torch.equal(position[:, 0], torch.zeros(500))
    torch.testing.assert_close(position[:, -1], torch.full((500,), SAMPLES - 1.0))
    speed = position.diff(dim=-1)
    assert speed.min() > 0
    assert 0.15 < speed.log().std() < 0.35
    assert speed.log().diff(dim=-1).abs().max() < 0.1, "the speed jumps"

    imu = make_imu(500)
    view = augmented(imu, op)
    for row in (0, 17, 499):
        for channel in (0, 5):
            signal = imu[row, channel].numpy()
            expected = np.interp(position[row].numpy(), np.arange(SAMPLES), signal)
            # Positions come back through float32 interpolation of the ramp: 1e-5 of a sample.
            np.testing.assert_allclose(view[row, channel].numpy(), expected, atol=5e-4)


def test_flip_and_negation_are_exact() -> None:
    imu = make_imu()
    backwards = torch.flip(imu, dims=(2,))
    backwards[:, 3:] *= -1
    assert torch.equal(augmented(imu, TimeFlip(p=1.0)), backwards)
    assert torch.equal(augmented(imu, Negation(p=1.0)), -imu)


@pytest.mark.parametrize("rate", [0.15, 0.9])
def test_channel_dropout_spares_one_channel(rate: float) -> None:
    imu = make_imu(2000)
    view = augmented(imu, ChannelDropout(rate=rate))
    dropped = (view == 0).all(dim=-1)
    assert torch.equal(view[~dropped], imu[~dropped])
    assert dropped.sum(dim=1).max() < CHANNELS
    expected = rate - rate**CHANNELS / CHANNELS  # one channel is spared where all would go
    assert abs(dropped.float().mean() - expected) < 0.015


def test_rotation_needs_triplets() -> None:
    with pytest.raises(ValueError, match="remove rotation from augment"):
        augmented(torch.zeros(2, 4, 10), Rotation())


def test_flip_goes_by_the_units_of_channels() -> None:
    imu = make_imu(4)[:, :2]
    flip = build_augment((TimeFlip(p=1.0),), ("rad/s", "m/s2"))
    view = flip(imu, step_generator(7, 0, "cpu"), slice(0, 4), 4)
    assert torch.equal(view, torch.stack((-imu[:, 0].flip(1), imu[:, 1].flip(1)), dim=1))
    with pytest.raises(ValueError, match="2 channels and 6 units; remove time_flip from augment"):
        augmented(imu, TimeFlip())


@pytest.mark.parametrize("magnitude", [1e18, 1e30, 3.4e38])
@pytest.mark.parametrize("where", ["window", "channel", "sample"])
def test_large_values_stay_finite_and_harm_no_other_row(magnitude: float, where: str) -> None:
    imu = make_imu()
    expected = augmented(imu, *DEFAULT_OPS, TimeFlip(), Negation())
    place = {"window": np.s_[5], "channel": np.s_[5, 3], "sample": np.s_[5, 3, 70]}[where]
    imu[place] = magnitude * imu[place].sign()
    for op in ALL_OPS:
        assert augmented(imu, op(p=1.0)).isfinite().all(), op
    view = augmented(imu, *DEFAULT_OPS, TimeFlip(), Negation())
    assert view.isfinite().all()
    others = torch.arange(len(imu)) != 5
    assert torch.equal(view[others], expected[others])


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", ["stacked_rnn", "stacked_rnn_time", "conv_stats", "transformer"])
def test_an_encoder_takes_a_window_of_huge_values_and_its_view(name: str, pooling: str) -> None:
    imu = make_imu(4)
    imu[1] *= 1e18
    encoder = build_encoder(
        EncoderConfig.model_validate({"name": name, "pooling": pooling}),
        channels=CHANNELS,
        samples=SAMPLES,
        rate_hz=50.0,
        teacher_dims={},
        shared=False,
        mean=(0.0,) * CHANNELS,
        std=(1.0,) * CHANNELS,
    )
    view = augmented(imu, *DEFAULT_OPS)
    encoder(torch.cat([imu, view])).ss.square().sum().backward()
    gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_views_of_large_values_are_those_of_small_ones_enlarged() -> None:
    imu, factor = make_imu(), 2.0**80
    expected = augmented(imu, *DEFAULT_OPS) * factor
    torch.testing.assert_close(augmented(imu * factor, *DEFAULT_OPS), expected, rtol=1e-5, atol=0)


def test_constant_windows_stay_finite() -> None:
    imu = torch.full((64, CHANNELS, SAMPLES), 9.81)
    assert augmented(imu, *DEFAULT_OPS, TimeFlip(), Negation()).isfinite().all()
