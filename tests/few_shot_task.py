"""A small few-shot task for tests: synthetic windows of three movements, and a small encoder."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from primus_scale.encoders.base import Embeddings
from primus_scale.evaluate import LabelledWindows, feature_arm, probe_arm

CLASSES = ("still", "slow", "fast")
RATE_HZ = 50.0
SAMPLES = 50
FREQUENCY_HZ = (0.0, 1.0, 4.0)


@pytest.fixture(scope="module")
def few_penalties() -> Iterator[None]:
    """Probes choose from few settings by few trials, where their choice is not the subject."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_arm, "PROBE_STRENGTHS", (0.1,))
        patch.setattr(feature_arm, "TRIALS_OF_FEW_LABELS", 2)
        yield


def make_side(people: range, windows_each: int = 8, seed: int = 0) -> LabelledWindows:
    """Windows of sines under gravity: a class is a frequency, a person an amplitude."""
    rng = np.random.default_rng([seed, people.start])
    time_s = np.arange(SAMPLES) / RATE_HZ
    imu, label, person = [], [], []
    for number in people:
        for class_id, frequency_hz in enumerate(FREQUENCY_HZ):
            for _ in range(windows_each):
                phase = rng.uniform(0, 2 * np.pi, size=(6, 1))
                amplitude = rng.uniform(0.5, 2.0) * (1 + 0.1 * number)
                wave = amplitude * np.sin(2 * np.pi * frequency_hz * time_s + phase)
                wave = wave * (frequency_hz > 0) + 0.3 * rng.standard_normal((6, SAMPLES))
                wave[2] += 9.8
                imu.append(wave)
                label.append(class_id)
                person.append(f"person-{number}")
    return LabelledWindows(
        imu=torch.tensor(np.stack(imu), dtype=torch.float32),
        label=np.array(label),
        person=np.array(person),
        session=np.array(person),
        classes=CLASSES,
        rate_hz=RATE_HZ,
    )


class SmallEncoder(nn.Module):
    """One convolution, and the maxima of its outputs over time as features."""

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolution = nn.Conv1d(6, 16, kernel_size=9, stride=2)

    def forward(self, imu: torch.Tensor) -> Embeddings:
        centred = imu - imu.mean(dim=2, keepdim=True)
        features = torch.relu(self.convolution(centred)).amax(dim=2)
        return Embeddings(features, features, {})


class LinearEncoder(SmallEncoder):
    """The same with a linear layer behind, and a head that the features do not pass through."""

    def __init__(self, seed: int):
        super().__init__(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(16, 12)
            self.head = nn.Linear(12, 4)

    def forward(self, imu: torch.Tensor) -> Embeddings:
        features = self.linear(super().forward(imu).features)
        return Embeddings(features, self.head(features), {})
