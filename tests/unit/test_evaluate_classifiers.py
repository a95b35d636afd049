import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from primus_scale.augment import build_augment
from primus_scale.config import EncoderConfig
from primus_scale.config.augment import Jitter
from primus_scale.encoders import build_encoder
from primus_scale.encoders.base import NoHeads
from primus_scale.evaluate.classifiers import (
    Classifier,
    Training,
    TrainingSettings,
    describe_computation,
    encode_features,
    fast_precision,
    fit_probe,
    predict,
)
from primus_scale.evaluate.probe_arm import PROBE_STRENGTHS
from tests.few_shot_task import CLASSES, SmallEncoder, make_side


def blobs(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), 20)
    return rng.normal(size=(len(label), 5)) * [1, 10, 0.1, 3, 1] + label[:, None], label


@pytest.mark.parametrize("classes", [2, 3])
def test_probe_is_scikit_learns_with_the_scaling_folded_in(classes):
    features, label = blobs(classes)
    unseen, _ = blobs(classes, seed=1)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000)
    model.fit(scaler.transform(features), label)
    probe = fit_probe(features, label, classes, strength=0.1, scale_by=features)
    assert np.array_equal(probe.predict(unseen), model.predict(scaler.transform(unseen)))
    logits = unseen @ probe.weight.T + probe.bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert shares == pytest.approx(model.predict_proba(scaler.transform(unseen)), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_probe_scales_by_other_windows_or_not_at_all(classes):
    features, label = blobs(classes)
    unseen, _ = blobs(classes, seed=1)
    scaler = StandardScaler().fit(unseen)
    model = LogisticRegression(C=1.0).fit(scaler.transform(features), label)
    probe = fit_probe(features, label, classes, 1.0, scale_by=unseen)
    assert np.array_equal(probe.predict(unseen), model.predict(scaler.transform(unseen)))
    plain = LogisticRegression(C=1.0, max_iter=500).fit(features, label)
    assert np.array_equal(
        fit_probe(features, label, classes, 1.0).predict(unseen), plain.predict(unseen)
    )


def test_probe_never_answers_a_class_without_example():
    features, label = blobs(3)
    kept = label != 1
    probe = fit_probe(features[kept], label[kept], 3, 1.0, features)
    assert set(probe.predict(features)) == {0, 2}


@pytest.mark.parametrize("strength", PROBE_STRENGTHS)
def test_probe_is_at_the_optimum_that_another_solver_finds(strength):
    """L-BFGS at a tolerance of 1e-10, on many features of few windows."""
    rng = np.random.default_rng(1)
    label = np.arange(60) % 4
    features = rng.normal(size=(60, 150)) + rng.normal(size=(4, 150))[label]
    probe = fit_probe(features, label, 4, strength, features)
    scaler = StandardScaler().fit(features)
    best = LogisticRegression(C=strength, solver="lbfgs", tol=1e-10, max_iter=10000)
    best.fit(scaler.transform(features), label)

    def penalised_loss(weight: np.ndarray, bias: np.ndarray) -> float:
        logits = scaler.transform(features) @ weight.T + bias
        log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return (weight**2).sum() / 2 - strength * log_shares[np.arange(60), label].sum()

    ours = probe.weight * scaler.scale_, probe.bias + probe.weight @ scaler.mean_
    least = penalised_loss(best.coef_, best.intercept_)
    assert penalised_loss(*ours) == pytest.approx(least, rel=1e-7)
    assert penalised_loss(*ours) >= least * (1 - 1e-9)
    unseen = rng.normal(size=(400, 150)) + rng.normal(size=(4, 150))[np.arange(400) % 4]
    assert np.array_equal(probe.predict(unseen), best.predict(scaler.transform(unseen)))


def test_weak_penalty_leaks_no_warning():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 200)) * 10.0 ** rng.integers(-3, 4, 200)
    fit_probe(features, rng.integers(0, 3, 60), 3, 1e6, features)


def start_training(seed: int, lr: float = 1e-2) -> Training:
    side = make_side(range(4))
    head = nn.Linear(16, len(CLASSES))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    augment = build_augment((Jitter(sd=0.05),))
    recipe = TrainingSettings(batch=16, lr=lr, augment=augment, seed=seed)
    return Training(
        Classifier(SmallEncoder(seed), head), side.imu, torch.from_numpy(side.label), recipe
    )


def weight(model: Classifier) -> torch.Tensor:
    return model.encoder.convolution.weight.detach().clone()


def test_training_learns_the_task_and_its_encoder():
    test = make_side(range(10, 12))
    training = start_training(0)
    untrained = predict(training.advance(1), test.imu) == test.label
    model = training.advance(80)
    assert (predict(model, test.imu) == test.label).mean() > 0.9 > untrained.mean()
    assert not torch.allclose(weight(model), SmallEncoder(0).convolution.weight)
    assert not model.training


def test_a_shorter_training_is_the_beginning_of_a_longer_one_bit_for_bit():
    """So what is read off a training on its way is what a training of so many steps gives."""
    longer = start_training(3)
    on_its_way = [weight(longer.advance(steps)) for steps in (1, 4, 9, 20)]
    torch.rand(7)  # nor does torch's own generator matter
    for steps, expected in zip((1, 4, 9, 20), on_its_way, strict=True):
        assert torch.equal(weight(start_training(3).advance(steps)), expected)


def test_what_is_given_is_the_weighted_mean_of_the_weights_along_the_way():
    """Against the closed form: the weights after step t count by the binomial C(t + 7, 8)."""
    training, steps = start_training(1), 12
    walked = []
    for step in range(1, steps + 1):
        averaged = training.advance(step)
        walked.append(weight(training.model))
    shares = np.array([math.comb(step + 7, 8) for step in range(1, steps + 1)], dtype=float)
    assert shares.sum() == math.comb(steps + 8, 9)
    expected = sum(share * w for share, w in zip(shares / shares.sum(), walked, strict=True))
    torch.testing.assert_close(weight(averaged), expected, rtol=0, atol=1e-6)


def test_training_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match="not finite after 40 steps"):
        start_training(0, lr=1e30).advance(40)


def test_computation_is_described():
    described = describe_computation(torch.device("cpu"))
    with fast_precision(torch.device("cpu")):
        computed = torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype
    assert described["precision"] == {
        torch.bfloat16: "bf16 autocast",
        torch.float32: "fp32",
    }.get(computed)
    assert described["device"] == "cpu"
    assert described["capability"] == torch.backends.cpu.get_cpu_capability()


def test_features_in_parts_equal_those_in_one_go():
    imu = make_side(range(40)).imu
    assert len(imu) > 512
    encoder = SmallEncoder(0)
    whole = encoder(imu).features.detach().numpy()
    assert encode_features(encoder, imu) == pytest.approx(whole, abs=1e-6)


def test_heads_that_nobody_reads_change_nothing():
    draws = torch.Generator().manual_seed(0)
    imu, label = torch.randn(12, 6, 250, generator=draws), torch.arange(12) % 3
    answers = []
    for heads in (True, False):
        torch.manual_seed(1)
        encoder = build_encoder(
            EncoderConfig(name="conv_stats", size="XS"),
            channels=6,
            samples=250,
            rate_hz=50.0,
            teacher_dims={"video": 16},
            shared=False,
            mean=[0.0] * 6,
            std=[1.0] * 6,
        )
        model = Classifier(encoder, nn.Linear(128, 3))
        if not heads:
            encoder.heads = NoHeads()
        settings = TrainingSettings(8, 1e-2, build_augment(None), seed=0)
        trained = Training(model, imu, label, settings).advance(4)
        with torch.no_grad():
            answers.append(trained(imu))
    torch.testing.assert_close(*answers, rtol=0, atol=0)
