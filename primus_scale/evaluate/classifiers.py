"""Classifiers on an encoder: a linear probe on frozen features, and training of the whole model.

Shapes: n windows, C channels, T samples, D width of the features; see ``primus_scale.sample``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from primus_scale.augment import Augment, step_generator
from primus_scale.distributed.precision import has_bfloat16
from primus_scale.encoders.calibration import Calibration, FeatureCalibration

INFERENCE_BATCH = 512
PROBE_ITERATIONS = 100  # of Newton's method, which takes 10 to 20
# With this tolerance the answers on HAPT are those of the optimum. scikit-learn's default solver
# takes about the same time and ends earlier: up to 0.4 % of its answers are others.
PROBE_TOLERANCE = 1e-6
WARMUP_STEPS = 20
AVERAGE_POWER = 8  # of polynomial-decay averaging: the last 7 % of the steps have half the weight
WEIGHT_DECAY = 0.01
GRADIENT_CLIP = 5.0


@dataclass(frozen=True)
class Probe:
    """Logistic regression on scaled features, written as one linear map of unscaled features.

    weight ``(classes, D)`` and bias ``(classes,)``, float64. The bias of a class that had no
    example is minus infinity.
    """

    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids ``(n,)`` of features ``(n, D)``."""
        return (features @ self.weight.T + self.bias).argmax(axis=1)

    def after(self, calibration: Calibration) -> Probe:
        """The same probe for features before their ``calibration``."""
        weight = self.weight @ calibration.weight.T
        return Probe(weight, self.bias - weight @ calibration.mean)


def fit_probe(
    features: np.ndarray,
    label: np.ndarray,
    classes: int,
    strength: float,
    scale_by: np.ndarray | None = None,
) -> Probe:
    """Fit a probe on features ``(n, D)`` with class ids ``(n,)`` of at least two classes.

    The fit is at the optimum, up to ``PROBE_TOLERANCE``, or where ``PROBE_ITERATIONS`` or rounding
    end it. There is only one, since the loss is convex.

    strength: the inverse of the L2 penalty (scikit-learn's ``C``). scale_by: features ``(m, D)``
    whose mean and deviation standardise; None leaves the features as they are.
    """
    scaler = StandardScaler(with_mean=scale_by is not None, with_std=scale_by is not None)
    scaler.fit(np.float64(features if scale_by is None else scale_by))
    model = LogisticRegression(
        C=strength, solver="newton-cg", tol=PROBE_TOLERANCE, max_iter=PROBE_ITERATIONS
    )
    with warnings.catch_warnings():
        # A weakly penalised probe may stop short of its optimum. It classifies as well by then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Line Search failed")  # where rounding ends it
        model.fit(scaler.transform(np.float64(features)), label)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if scale_by is not None:
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
    whole_weight = np.zeros((classes, features.shape[1]))
    whole_bias = np.full(classes, -np.inf)
    whole_weight[model.classes_] = weight
    whole_bias[model.classes_] = bias
    return Probe(whole_weight, whole_bias)


class Classifier(nn.Module):
    """An encoder and a linear head: imu ``(B, C, T)`` -> logits ``(B, classes)``.

    calibration: of the features, before the head; it is not trained.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Linear, calibration: FeatureCalibration | None = None
    ):
        super().__init__()
        self.encoder = encoder
        self.calibration = calibration or nn.Identity()
        self.head = head

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Class logits of windows in SI units."""
        return self.head(self.calibration(self.encoder(imu).features))


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained, except for the number of steps (``Training.advance``).

    kept: the share of the first weights in the classifier, 0 for none.
    """

    batch: int
    lr: float
    augment: Augment
    seed: int
    kept: float = 0.0


class Training:
    """Training of encoder and head, whose accuracy can be measured after any step.

    AdamW with a constant rate after a short linear warm-up. The classifier has an average a of the
    weights w, in which recent steps have the most weight: after step n, with p = AVERAGE_POWER,

        a_n = a_(n-1) + (p + 1) / (p + n) * (w_n - a_(n-1)).

    Like a schedule that falls to zero, such as a cosine, the average reduces the noise of a high
    rate. But such a schedule depends on the last step, so each number of steps would need a
    training of its own. With the average, the first n steps of a longer training are, to the bit, a
    training of n steps. So one training shows which number of steps is best.

    A training that begins at good weights w_0 may keep a share s of them. Then the classifier has
    the weights s * w_0 + (1 - s) * a_n.

    Sources: polynomial-decay averaging, Shamir and Zhang, ICML 2013; averaged weights instead of a
    falling rate, Haegele et al., NeurIPS 2024, arXiv 2405.18392; weights between those before and
    after fine-tuning, Wortsman et al., CVPR 2022, arXiv 2109.01903, section 3.
    """

    def __init__(
        self, model: Classifier, imu: torch.Tensor, label: torch.Tensor, settings: TrainingSettings
    ):
        """Train ``model`` on augmented windows ``(n, C, T)`` with class ids ``(n,)``.

        Each step takes the next ``min(batch, n)`` windows of repeatedly shuffled windows.
        """
        self.model = model
        self._classifier = copy.deepcopy(model).eval()
        self._imu, self._label, self._settings = imu, label, settings
        self._parameters = _trained(model)
        self._first = [p.detach().clone() for p in self._parameters]
        self._average = [p.detach().clone() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._rows = _shuffled_rows(len(imu), min(settings.batch, len(imu)), settings.seed)
        self._steps = 0

    def advance(self, steps: int) -> Classifier:
        """Train until ``steps`` steps are done in all; returns the classifier (see the class).

        ``steps`` must be no fewer than before; after 0 the classifier has the first weights. Each
        call returns the same object. Raises FloatingPointError where the loss is not finite.
        """
        assert steps >= self._steps
        self.model.train()
        while self._steps < steps:
            loss = self._step()
            if self._steps == steps and not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is not finite after {steps} steps")
        own = _trained(self._classifier)
        with torch.no_grad():
            for weight, average, first in zip(own, self._average, self._first, strict=True):
                weight.copy_(average.lerp(first, self._settings.kept))
        for buffer, now in zip(self._classifier.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(now)
        return self._classifier

    def _step(self) -> torch.Tensor:
        settings, device = self._settings, self._imu.device
        chosen = next(self._rows).to(device)
        generator = step_generator(settings.seed, self._steps, device)
        view = settings.augment(self._imu[chosen], generator, slice(0, len(chosen)), len(chosen))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (self._steps + 1) / WARMUP_STEPS)
        with fast_precision(device):
            logits = self.model(view)
        loss = nn.functional.cross_entropy(logits.float(), self._label[chosen])
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, GRADIENT_CLIP)
        self._optimizer.step()
        self._steps += 1
        share = (AVERAGE_POWER + 1) / (AVERAGE_POWER + self._steps)
        with torch.no_grad():
            for mean, now in zip(self._average, self._parameters, strict=True):
                mean.lerp_(now, share)
        return loss.detach()


def _trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [p for p in model.parameters() if p.requires_grad]


def fast_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the device computes in it natively; no effect elsewhere.

    On a CPU that computes in bfloat16, training takes about half the time. Other CPUs would emulate
    it slowly.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))


def describe_computation(device: torch.device) -> dict[str, Any]:
    """How trained arms compute on this machine, for JSON: results depend on it slightly.

    Keys: ``precision`` of training ("bf16 autocast" or "fp32"), ``device``, ``capability`` (the
    instructions that torch uses on a CPU, the version of a GPU) and ``torch``.
    """
    cuda = device.type == "cuda"
    capability = (
        ".".join(map(str, torch.cuda.get_device_capability(device)))
        if cuda
        else torch.backends.cpu.get_cpu_capability()
    )
    return {
        "precision": "bf16 autocast" if has_bfloat16(device) else "fp32",
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "capability": capability,
        "torch": torch.__version__,
    }


def encode_features(encoder: nn.Module, imu: torch.Tensor) -> np.ndarray:
    """Features ``(n, D)`` float32 of windows ``(n, C, T)`` by an encoder in inference mode."""
    encoder.eval()
    with torch.inference_mode():
        parts = [encoder(part).features.float().cpu() for part in imu.split(INFERENCE_BATCH)]
    return torch.cat(parts).numpy()


def predict(model: Classifier, imu: torch.Tensor) -> np.ndarray:
    """Class ids ``(n,)`` of windows ``(n, C, T)``."""
    model.eval()
    with torch.inference_mode(), fast_precision(imu.device):
        parts = [model(part).argmax(dim=1).cpu() for part in imu.split(INFERENCE_BATCH)]
    return torch.cat(parts).numpy()


def _shuffled_rows(count: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of row numbers without end: all rows in random order, then in another, and so on."""
    generator = torch.Generator().manual_seed(seed)
    pending = torch.empty(0, dtype=torch.int64)
    while True:
        while len(pending) < batch:
            pending = torch.cat([pending, torch.randperm(count, generator=generator)])
        yield pending[:batch]
        pending = pending[batch:]
