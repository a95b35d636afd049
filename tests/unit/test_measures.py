"""Measures of an embedding space, on spaces whose measure is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from primus_scale.monitor import measures
from primus_scale.monitor.measures import (
    alignment,
    chance_of_recall,
    effective_rank,
    group_equal,
    ranks_of_own,
    recall_at_1,
    uniformity,
)


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
    keys = torch.eye(5)
    queries = keys[[0, 1, 3, 2, 1]]
    assert recall_at_1(queries, keys).item() == 0.4
    assert recall_at_1(queries, keys, groups=torch.tensor([0, 1, 2, 2, 4])).item() == 0.8
    own = torch.tensor([3, 1])
    assert recall_at_1(queries[own], keys, own).item() == 0.5


def test_equal_vectors_are_grouped_and_chance_counts_them():
    vectors = torch.tensor([[1.0, 0], [0, 1], [2, 0], [0, 0], [0.0, 3], [1, 1e-3], [1, 0.1]])
    groups = group_equal(vectors, torch.arange(7))
    assert groups.tolist() == [0, 1, 0, 3, 1, 0, 6]
    assert group_equal(vectors, torch.tensor([4, 2])).tolist() == [1, 0]
    # 3 of the windows have 3 right answers of 7, 2 have 2, 2 have 1
    assert chance_of_recall(groups).item() == pytest.approx((3 * 3 + 2 * 2 + 2 * 1) / 7 / 7)
    assert chance_of_recall(torch.arange(8)).item() == pytest.approx(1 / 8)


def test_chance_within_the_first_of_a_random_order_is_that_of_all_orders():
    groups = torch.tensor([0, 1, 0, 3, 0])
    orders = list(itertools.permutations(range(5)))
    for at in (1, 2, 4, 9):
        hits = [
            any(groups[key] == groups[query] for key in order[:at])
            for order in orders
            for query in range(5)
        ]
        assert chance_of_recall(groups, at).item() == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("pairs", [1, 2**24])
def test_ranks_of_own_keys_are_those_of_a_sorted_list(monkeypatch, pairs):
    monkeypatch.setattr(measures, "PAIRS_AT_ONCE", pairs)
    draws = torch.Generator().manual_seed(0)
    keys = torch.randn(40, 4, generator=draws)
    keys[30:] = keys[:10]
    queries = keys + 0.5 * torch.randn(40, 4, generator=draws)
    own = torch.arange(40)
    groups = group_equal(keys, own)
    ranks = ranks_of_own(queries, keys, own, groups)
    for number, query in enumerate(queries):
        order = torch.nn.functional.cosine_similarity(query[None], keys).argsort(descending=True)
        correct = [place for place, key in enumerate(order, 1) if groups[key] == groups[number]]
        assert ranks[number].item() == correct[0]
    assert (ranks == 1).double().mean() == recall_at_1(queries, keys, own, groups)
    collapsed = torch.ones(40, 4)
    assert ranks_of_own(collapsed, keys, own, groups).shape == (40,)
    assert (ranks_of_own(keys, collapsed, own, own) == 40).all(), "equal keys find nothing"


class LargestTensor(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("pairs", [1, 1000, 2**24])
def test_recall_in_pieces_equals_a_loop_in_bounded_memory(monkeypatch, pairs):
    monkeypatch.setattr(measures, "PAIRS_AT_ONCE", pairs)
    draws = torch.Generator().manual_seed(0)
    keys = torch.randn(300, 4, generator=draws)
    keys[200:] = 2 * keys[:100]
    queries = keys + 0.6 * torch.randn(300, 4, generator=draws)
    with LargestTensor() as largest:
        groups = group_equal(keys, torch.arange(300))
        recall = recall_at_1(queries, keys, groups=groups)
    assert largest.elements <= max(pairs, 4 * 300)
    unit = [row / row.norm() for row in keys.double()]
    hits = 0
    for number, query in enumerate(queries.double()):
        scores = [float(query @ key) for key in unit]
        hits += scores.index(max(scores)) % 200 == number % 200
    assert 0 < hits < 300
    assert recall.item() == pytest.approx(hits / 300)
