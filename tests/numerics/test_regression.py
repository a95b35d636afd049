"""Regression onto the signal teacher's embedding against a loop over windows in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.regression import regression
from primus_scale.sample import Batch

B, D = 7, 5
VALIDS = {
    "all": [True] * B,
    "some": [True, False, True, True, False, True, True],
    "one": [False, False, True] + [False] * 4,
}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loop_regression(predictions, targets, valid):
    """The loss as the definition reads."""
    total = 0.0
    for i in range(len(targets)):
        if valid[i]:
            for view in predictions:
                cosine = view[i] @ targets[i] / view[i].norm() / targets[i].norm()
                total = total + (1 - cosine) / len(predictions)
    return total / sum(valid)


@pytest.mark.parametrize("valid", VALIDS.values(), ids=VALIDS)
@pytest.mark.parametrize("views", [1, 2])
def test_regression_and_its_gradients(views, valid):
    predictions = [(3 * draw(seed, B, D)).requires_grad_() for seed in range(views)]
    mask = torch.tensor(valid)
    targets = functional.normalize(draw(9, B, D), dim=1) * mask[:, None]
    loss, rows = regression(predictions, targets, mask, mask.sum())
    exact = [each.detach().double().requires_grad_() for each in predictions]
    expected = loop_regression(exact, targets.double(), valid)
    assert rows == sum(valid)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    inexact = torch.autograd.grad(loss, predictions)
    for ours, theirs in zip(inexact, torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)
        assert not ours[~mask].any() and ours.any()


def test_without_embeddings_it_is_zero_and_has_no_gradient():
    prediction = draw(0, B, D).requires_grad_()
    nobody = torch.zeros(B, dtype=torch.bool)
    loss, rows = regression([prediction], torch.zeros(B, D), nobody, nobody.sum())
    assert (loss.item(), rows.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert not gradient.any() and gradient.isfinite().all()


def test_arithmetic_is_float32_for_bfloat16_embeddings_and_under_autocast():
    prediction = draw(0, B, D).bfloat16().requires_grad_()
    targets = functional.normalize(draw(1, B, D), dim=1)
    expected = loop_regression([prediction.double()], targets.double(), VALIDS["all"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        everyone = torch.ones(B, dtype=torch.bool)
        loss = regression([prediction], targets, everyone, everyone.sum()).loss
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def make_view(seed: int) -> Embeddings:
    return Embeddings(draw(seed, B, 3), draw(seed, B, 4), {"signal": draw(seed, B, D)})


@pytest.mark.parametrize("loss", ["regression", "contrastive"])
def test_term_uses_the_views_and_the_temperature_that_it_says(loss):
    """Regression is of both views and has no temperature; contrast is of view 0, at its own."""
    numbers = torch.arange(B)
    mask = torch.tensor(VALIDS["some"])
    targets = functional.normalize(draw(9, B, D), dim=1) * mask[:, None]
    batch = Batch(
        torch.zeros(B, 6, 4), *[numbers] * 4, {"signal": targets}, {"signal": mask}, span_s=1.0
    )
    names = ("video", "text", "imu")
    weights = {f"{kind}_{m}": 0.0 for kind in ("imu", "neighbour") for m in names}
    config = ObjectiveConfig.model_validate(
        {"weights": {**weights, "imu_signal": 3.0}, "signal": {"loss": loss}}
    )
    temperatures = {} if loss == "regression" else {"signal": torch.tensor(0.3)}
    views = make_view(1), make_view(2)
    output = primus_loss(*views, temperatures, batch, None, config)
    if loss == "regression":
        predictions = [view.mm["signal"].double() for view in views]
        expected = loop_regression(predictions, targets.double(), mask.tolist())
    else:
        logits = functional.normalize(views[0].mm["signal"], dim=1)[mask] @ targets[mask].T / 0.3
        both = logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()
        expected = -both.mean().double()
    torch.testing.assert_close(output.terms["imu_signal"].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.total, 3 * output.terms["imu_signal"])
    assert output.rows["imu_signal"] == mask.sum()
