import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from primus_scale.augment import build_augment
from primus_scale.config import Jitter
from primus_scale.evaluate.finetune import (
    Classifier,
    Recipe,
    encode_features,
    fit_classifier,
    fit_probe,
    predict,
    warmup_cosine,
)
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
    model = LogisticRegression(C=0.1).fit(scaler.transform(features), label)
    probe = fit_probe(features, label, classes, strength=0.1)
    assert np.array_equal(probe.predict(unseen), model.predict(scaler.transform(unseen)))
    logits = unseen @ probe.weight.T + probe.bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert shares == pytest.approx(model.predict_proba(scaler.transform(unseen)), abs=1e-6)


def test_probe_never_answers_a_class_without_example():
    features, label = blobs(3)
    kept = label != 1
    probe = fit_probe(features[kept], label[kept], 3, strength=1.0)
    assert set(probe.predict(features)) == {0, 2}


def test_weak_penalty_leaks_no_warning():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 200)) * 10.0 ** rng.integers(-3, 4, 200)
    fit_probe(features, rng.integers(0, 3, 60), 3, strength=1e6)


def test_learning_rate_rises_then_falls_to_zero():
    factors = [warmup_cosine(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[-1] < 1e-3


def train(seed: int, steps: int = 60) -> tuple[Classifier, np.ndarray]:
    side = make_side(range(4))
    head = nn.Linear(16, len(CLASSES))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = Classifier(SmallEncoder(seed), head)
    augment = build_augment((Jitter(sd=0.05),))
    recipe = Recipe(steps=steps, batch=16, lr=1e-2, augment=augment, seed=seed)
    fit_classifier(model, side.imu, torch.from_numpy(side.label), recipe)
    test = make_side(range(10, 12))
    return model, predict(model, test.imu) == test.label


def test_training_learns_the_task_and_its_encoder():
    before = SmallEncoder(0).convolution.weight
    _, untrained = train(0, steps=1)
    model, hits = train(0)
    assert hits.mean() > 0.9 > untrained.mean()
    assert not torch.allclose(model.encoder.convolution.weight, before)
    assert not model.training


def test_training_repeats_bit_for_bit_whatever_torchs_own_generator_does():
    first, _ = train(3, steps=5)
    torch.rand(7)
    second, _ = train(3, steps=5)
    assert torch.equal(first.encoder.convolution.weight, second.encoder.convolution.weight)


def test_features_in_parts_equal_those_in_one_go():
    imu = make_side(range(40)).imu
    assert len(imu) > 512
    encoder = SmallEncoder(0)
    whole = encoder(imu).features.detach().numpy()
    assert encode_features(encoder, imu) == pytest.approx(whole, abs=1e-6)
