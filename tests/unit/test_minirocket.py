"""MiniRocket against a naive calculation in float64, from the formulas of its paper."""

import numpy as np
import pytest

from primus_scale.evaluate.minirocket import FEATURES, MiniRocket
from tests.naive_convolution import naive_convolution, walks


def test_features_are_shares_of_samples_above_the_biases():
    imu = walks()
    transform = MiniRocket(imu, seed=3)
    features = transform.features(imu)
    assert features.shape == (12, FEATURES)
    start = 0
    generator = np.random.default_rng(1)
    for number, (dilation, weight, biases) in enumerate(transform._convolutions):
        count = biases.shape[1]
        kernel, place = generator.integers(84), generator.integers(count)
        output = naive_convolution(imu[5], weight[kernel].numpy(), dilation)
        if (kernel + number) % 2:  # kernels take turns
            output = output[4 * dilation : -4 * dilation]
        share = np.mean(output > float(biases[kernel, place]) + 0.0)
        column = start + kernel * count + place
        assert abs(features[5, column] - share) <= 1.01 / len(output)  # one sample at a bias
        start += 84 * count
    assert start == FEATURES


def test_kernels_and_dilations_are_those_of_the_paper():
    transform = MiniRocket(walks(channels=1, samples=250))
    weights = {tuple(row) for row in transform._convolutions[0].weight[:, 0].tolist()}
    assert len(weights) == 84
    assert {tuple(sorted(row)) for row in weights} == {(-1.0,) * 6 + (2.0,) * 3}
    dilations = [convolution.dilation for convolution in transform._convolutions]
    assert dilations == sorted(set(dilations))
    assert (dilations[0], dilations[-1]) == (1, 31)  # 31 x 8 = 248 is within 250 samples
    counts = [convolution.biases.shape[1] for convolution in transform._convolutions]
    assert sum(counts) == FEATURES // 84
    assert counts == sorted(counts, reverse=True)  # small dilations occur most often


def test_short_windows_are_refused():
    with pytest.raises(ValueError, match="at least 9 samples"):
        MiniRocket(walks(samples=8))
