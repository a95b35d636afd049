"""The term ``imu_near`` against a loop over pairs in float64."""

from __future__ import annotations

import math

import pytest
import torch

from primus_scale.config import NearConfig
from primus_scale.objective import pairs
from primus_scale.objective.contrast import unit_rows
from primus_scale.objective.near import NearContrast
from primus_scale.objective.pairs import PairSum, sum_pairs
from primus_scale.sample import Origin

D = 5
# (session, recording, start): a session of two recordings, one of another device at the same time,
# one of a single window, and windows whose time is not known.
WINDOWS = [
    *((1, 10, float(start)) for start in (0, 1, 2.5, 5, 6, 20, 21, 40)),
    *((1, 11, float(start)) for start in (0, 1, 30)),
    *((2, 10, float(start)) for start in (0, 1, 15, 16)),
    (3, 12, 3.0),
    (4, 13, -math.inf),
    (4, 13, -math.inf),
    (4, 13, 0.0),
    (4, 13, 1.0),
    (4, 14, 1.0),
]
CONFIGS = {
    "session": {},
    "global": {"global_negatives": 1.0},
    "mixed": {"global_negatives": 0.3},
    "wide": {"min_s": 0.5, "max_s": 6.0, "exclude_s": 6.0},
}


def origin() -> Origin:
    session, recording, start = zip(*WINDOWS, strict=True)
    return Origin(
        uid=torch.arange(len(WINDOWS)),
        recording=torch.tensor(recording),
        session=torch.tensor(session),
        start_s=torch.tensor(start, dtype=torch.float64),
    )


def near_contrast(embeddings, temperature, windows, config):
    """The loss by the program, of one process, and the number of rows that have one."""
    loss, unit = NearContrast(windows, windows, config), unit_rows(embeddings)
    [value] = sum_pairs([PairSum(loss, unit, unit, temperature)])
    return value, loss.rows


def distance(i: int, j: int) -> float:
    """Seconds between two windows: infinite between recordings, NaN where it is not known."""
    (_, one, start), (_, other, end) = WINDOWS[i], WINDOWS[j]
    if one != other:
        return math.inf
    return abs(start - end) if math.isfinite(start + end) else math.nan


def loop_near(embeddings, temperature, config, share_of):
    """The loss as the definition reads. share_of: "session" or "global", whose negatives count."""
    z = [row / row.norm() for row in embeddings.double()]
    total, rows = 0.0, 0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        of_session = [j for j in others if WINDOWS[i][0] == WINDOWS[j][0]]
        near = [j for j in of_session if config.min_s <= distance(i, j) <= config.max_s]
        pool = of_session if share_of == "session" else others
        far = [j for j in pool if distance(i, j) > config.exclude_s]
        if not near or not far:
            continue
        rows += 1
        negatives = sum((z[i] @ z[j] / temperature).exp() for j in far)
        for p in near:
            positive = (z[i] @ z[p] / temperature).exp()
            total = total - (positive / (positive + negatives)).log() / len(near)
    return total / rows, rows


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("rows_at_once", [None, 4])
def test_near_loss_and_its_gradients(changes, temperature, rows_at_once, monkeypatch):
    if rows_at_once:
        monkeypatch.setattr(pairs, "KEPT_PAIRS", 0)
        monkeypatch.setattr(pairs, "ROWS_AT_ONCE", rows_at_once)
    config = NearConfig.model_validate(changes)
    embeddings = torch.randn(len(WINDOWS), D, generator=torch.Generator().manual_seed(0))
    embeddings.requires_grad_()
    tau = torch.tensor(temperature, requires_grad=True)
    loss, rows = near_contrast(embeddings, tau, origin(), config)

    exact = embeddings.detach().double().requires_grad_()
    exact_tau = tau.detach().double().requires_grad_()
    share, expected, counts = config.global_negatives, 0.0, {}
    for kind, weight in (("session", 1 - share), ("global", share)):
        if weight:
            value, counts[kind] = loop_near(exact, exact_tau, config, kind)
            expected = expected + weight * value
    assert rows == next(iter(counts.values())) > 10
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad(loss, (embeddings, tau))
    theirs = torch.autograd.grad(expected, (exact, exact_tau))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 / temperature)
        assert one.any()


def test_windows_without_positive_or_negative_give_zero_and_no_gradient():
    embeddings = torch.randn(3, D, requires_grad=True)
    tau = torch.tensor(0.2, requires_grad=True)
    ids = torch.zeros(3, dtype=torch.int64)
    far_apart = Origin(torch.arange(3), ids, ids, torch.tensor([0.0, 20.0, 40.0]).double())
    loss, rows = near_contrast(embeddings, tau, far_apart, NearConfig())
    assert (loss.item(), rows.item()) == (0.0, 0)
    for gradient in torch.autograd.grad(loss, (embeddings, tau)):
        assert not gradient.any() and gradient.isfinite().all()


def test_a_copy_of_a_window_is_no_negative_of_it():
    """The second view of a window in one batch would be its easiest and falsest negative."""
    embeddings = torch.randn(len(WINDOWS), D, generator=torch.Generator().manual_seed(1))
    config = NearConfig(global_negatives=1.0)
    everything = origin()
    _, before = near_contrast(embeddings, torch.tensor(0.2), everything, config)
    rows = torch.tensor([*range(len(WINDOWS)), len(WINDOWS) - 1])
    twice = Origin(*(column[rows] for column in everything))
    _, after = near_contrast(embeddings[rows], torch.tensor(0.2), twice, config)
    assert after == before
