"""MultiRocket and Hydra against naive calculations in float64, as their papers describe them."""

import numpy as np
import pytest
import torch

from primus_scale.evaluate.hydra import Hydra, SparseScaler, multirocket_hydra_scaler
from primus_scale.evaluate.multirocket import FEATURES, MultiRocket, four_pools
from tests.naive_convolution import naive_convolution, walks

SMALL = {"channels": 2, "samples": 30}


def naive_pools(output, bias):
    """Share, mean and mean index of the samples above the bias, and their longest stretch."""
    above, index, longest, run = [], [], 0, 0
    for t, value in enumerate(output):
        run = run + 1 if value > bias else 0
        longest = max(longest, run)
        if value > bias:
            above.append(value - bias)
            index.append(t)
    if not above:
        return [0, 0, -1, 0]
    return [len(above) / len(output), np.mean(above), np.mean(index), longest]


def test_multirocket_pools_the_window_and_its_difference_in_four_ways():
    transform, imu = MultiRocket(walks(**SMALL), seed=3), walks(count=2, seed=1, **SMALL)
    features = transform.features(imu)
    assert features.shape == (2, FEATURES) and features.dtype == np.float32
    column = 0
    for part, series in zip(transform._parts, (imu[1], np.diff(imu[1])), strict=True):
        assert sum(one.biases.shape[1] for one in part._convolutions) == 15
        for number, (dilation, weight, biases) in enumerate(part._convolutions):
            for kernel, of_kernel in enumerate(biases.tolist()):
                output = naive_convolution(series, weight[kernel].numpy(), dilation)
                if (kernel + number) % 2:  # kernels take turns
                    output = output[4 * dilation : -4 * dilation]
                expected = [value for bias in of_kernel for value in naive_pools(output, bias)]
                found = features[1, column : column + len(expected)]
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
                column += len(expected)
    assert column == FEATURES


def test_where_no_sample_is_above_the_bias_there_is_no_index():
    output = torch.tensor([[[1.0, 2.0, 2.0, 0.0]]])
    assert four_pools(output, torch.tensor([[2.0]])).flatten().tolist() == [0, 0, -1, 0]
    assert four_pools(output, torch.tensor([[1.5]])).flatten().tolist() == [0.5, 0.5, 1.5, 2]


def test_hydra_counts_the_kernels_that_win_and_those_that_lose():
    transform, imu = Hydra((2, 30), seed=3), walks(count=2, seed=1, **SMALL)
    features = transform.features(imu)
    column = 0
    for part, series in zip(transform._parts, (imu[1], np.diff(imu[1])), strict=True):
        assert [groups.dilation for groups in part] == [1, 2]  # 4 x 8 is beyond 30 samples
        for dilation, used, weight in part:
            assert weight.mean(2).abs().max() < 1e-7
            assert weight.abs().sum(2).numpy() == pytest.approx(1, rel=1e-5)
            for group, kernels in enumerate(weight[:, 0].numpy().reshape(32, 8, 9)):
                whole = [used[group, :, None].numpy() * kernel for kernel in kernels]
                output = np.stack([naive_convolution(series, one, dilation) for one in whole])
                soft, hard = np.zeros(8), np.zeros(8)
                for at in output.T:
                    soft[at.argmax()] += at.max()
                    hard[at.argmin()] += 1
                expected = np.sqrt(np.maximum(np.concatenate([soft, hard]), 0))
                found = features[1, column : column + 16]
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
                column += 16
    assert features.shape == (2, column) == (2, 2 * 1024)


def test_a_sparse_scaler_leaves_zeros_and_adds_their_share_to_the_deviation():
    counts = np.array([[0, 5, 0, 1], [2, 5, 0, 2], [4, 5, 0, 3], [0, 5, 0, 6]], dtype=np.float32)
    deviation = np.sqrt(11 / 4)  # of 0, 2, 4, 0, whose mean is 1.5
    expected = np.zeros((4, 4))
    expected[1:3, 0] = np.array([0.5, 2.5]) / (deviation + 0.5**4)
    expected[:, 3] = (np.array([1, 2, 3, 6]) - 3) / np.sqrt(14 / 4)
    scaler = SparseScaler().fit(counts)
    assert scaler.transform(counts) == pytest.approx(expected, abs=1e-6)
    others = scaler.transform(np.full((1, 4), 7, dtype=np.float32))  # constants were left unscaled
    assert others[0, 1:3].tolist() == [2, 7]


def test_the_arm_standardises_multirocket_and_keeps_the_zeros_of_hydra():
    rng = np.random.default_rng(0)
    features = rng.normal(5, 3, (20, FEATURES + 4)).astype(np.float32)
    features[::2, FEATURES:] = 0
    scaled = multirocket_hydra_scaler().fit(features).transform(features)
    assert scaled[:, :FEATURES].mean(0) == pytest.approx(0, abs=1e-5)
    assert scaled[:, :FEATURES].std(0) == pytest.approx(1, abs=1e-5)
    assert not scaled[::2, FEATURES:].any() and scaled[1::2, FEATURES:].all()


def test_the_seed_determines_kernels_and_channels():
    imu = walks(**SMALL)
    for made in (lambda seed: MultiRocket(imu, seed), lambda seed: Hydra((2, 30), seed)):
        first, again, other = (made(seed).features(imu) for seed in (0, 0, 1))
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_short_windows_are_refused():
    with pytest.raises(ValueError, match="at least 10 samples"):
        MultiRocket(walks(samples=9))
