"""Low-rank adapters against the matrix that they stand for."""

import numpy as np
import pytest
import torch
from torch import nn

from primus_scale.augment import build_augment
from primus_scale.config import EncoderConfig, FewShotConfig
from primus_scale.encoders import build_encoder
from primus_scale.evaluate.arms import TaskWindows, TrainingRows
from primus_scale.evaluate.build_arms import build_arms
from primus_scale.evaluate.classifiers import Classifier, Training, TrainingSettings
from primus_scale.evaluate.lora import ALPHA, RANK, adaptable_layers, adapted_copy
from tests.few_shot_task import CLASSES, RATE_HZ, LinearEncoder, SmallEncoder, make_side

LABEL = make_side(range(4), windows_each=3)
WINDOWS = TaskWindows(
    LABEL.imu, LABEL.label, LABEL.person, LABEL.session, len(CLASSES), RATE_HZ, len(LABEL)
)
AUGMENT = build_augment(())


def test_adapters_are_trained_and_nothing_else_of_the_encoder() -> None:
    encoder = LinearEncoder(1).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    adapted = adapted_copy(encoder, LABEL.imu[:1], seed=3)
    assert torch.equal(adapted(LABEL.imu).features, encoder(LABEL.imu).features)

    settings = TrainingSettings(batch=16, lr=1e-2, augment=AUGMENT, seed=0)
    model = Classifier(adapted, nn.Linear(12, len(CLASSES)))
    trained = Training(model, LABEL.imu, torch.from_numpy(LABEL.label), settings).advance(10)
    weights = dict(trained.encoder.named_parameters())
    (down,) = [w.detach() for name, w in weights.items() if "lora_A" in name]
    (up,) = [w.detach() for name, w in weights.items() if "lora_B" in name]
    assert down.shape == (RANK, 16) and up.shape == (12, RANK) and up.any()
    assert torch.equal(weights["convolution.weight"], before["convolution.weight"])
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in before.items())

    hidden = SmallEncoder(1).eval()(LABEL.imu).features
    merged = before["linear.weight"] + ALPHA / RANK * up @ down
    expected = hidden @ merged.T + before["linear.bias"]
    torch.testing.assert_close(trained.encoder(LABEL.imu).features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"name": "stacked_rnn"}, 0),
        ({"name": "stacked_rnn", "pooling": "stats"}, 1),
        ({"name": "conv_stats", "size": "XS"}, 2),
        ({"name": "transformer", "patch": 25}, 1 + 4 * 12),
    ],
)
def test_layers_that_features_depend_on_are_adapted_and_heads_are_not(
    settings: dict, layers: int
) -> None:
    encoder = build_encoder(
        EncoderConfig(**settings, ss_dim=8), channels=6, samples=150, rate_hz=50.0,
        teacher_dims={"text": 8}, shared=False, mean=(0.0,) * 6, std=(1.0,) * 6,
    ).eval()  # fmt: skip
    found = adaptable_layers(encoder, torch.randn(2, 6, 150))
    assert len(found) == layers
    assert not [name for name in found if name.startswith("heads")]


def test_an_arm_with_adapters_learns_repeats_and_is_refused_without_linear_layers() -> None:
    config = FewShotConfig(arms=("lora",), steps=100, lrs=(1e-2,), batch=16)
    arm = build_arms(WINDOWS, LinearEncoder(1), LinearEncoder, AUGMENT, config, seed=0)["lora"]
    rows = np.arange(len(LABEL))
    given = TrainingRows(rows[::2], rows, seed=0)
    answers = arm.predict(given, rows, {"lr": 1e-2, "steps": 100})
    assert np.mean(answers == LABEL.label) > 0.6  # chance is 1/3
    assert np.array_equal(answers, arm.predict(given, rows, {"lr": 1e-2, "steps": 100}))
    with pytest.raises(ValueError, match=r"arm lora adapts linear layers, and .* depend on none"):
        build_arms(WINDOWS, SmallEncoder(1), SmallEncoder, AUGMENT, config, seed=0)
