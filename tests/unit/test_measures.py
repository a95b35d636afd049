"""Measures of an embedding space, on spaces whose measure is known."""

from __future__ import annotations

import math

import pytest
import torch

from primus_scale.measures import alignment, effective_rank, recall_at_1, uniformity


def test_alignment_is_the_squared_distance_on_the_sphere():
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert alignment(first, 3 * first).item() == 0
    assert alignment(first, -first).item() == pytest.approx(4)
    assert alignment(first, torch.tensor([[0.0, 5.0], [0.0, 1.0]])).item() == pytest.approx(1)


def test_uniformity_over_all_pairs():
    assert uniformity(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.log((2 * math.exp(-2 * 2) + math.exp(-2 * 4)) / 3)
    assert uniformity(points).item() == pytest.approx(expected, rel=1e-5)


def test_effective_rank_counts_directions():
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6, rel=1e-5)
    assert effective_rank(torch.ones(9, 6)).item() == pytest.approx(1, abs=1e-4)
    two = torch.eye(6)[[0, 1, 0, 1]]
    assert effective_rank(two).item() == pytest.approx(2, rel=1e-4)


def test_recall_counts_own_keys_and_equally_good_ones():
    keys = torch.eye(4)
    queries = keys[[0, 1, 3, 2]]
    assert recall_at_1(queries, keys).item() == 0.5
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[2, 3] = True
    assert recall_at_1(queries, keys, same).item() == 0.75
