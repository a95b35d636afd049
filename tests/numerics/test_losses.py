"""The contrastive loss and the objective against loops over pairs in float64."""

from __future__ import annotations

import math

import pytest
import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import contrastive, gather_rows, info_nce
from primus_scale.objective.loss import primus_loss
from primus_scale.sample import Batch
from primus_scale.support import Neighbours

B, D = 9, 6


def loop_contrastive(
    queries, keys, temperature, valid, same, reduction="sum", own=lambda i, j: False
):
    """InfoNCE of both directions, pair by pair, as the definition reads.

    own(i, j): key j is of query i's own moment.
    """
    queries = [row / row.norm() for row in queries.double()]
    keys = [row / row.norm() for row in keys.double()]
    total, rows = 0.0, 0
    for i in range(len(queries)):
        if not valid[i]:
            continue
        rows += 1
        others = [j for j in range(len(keys)) if j != i and valid[j] and not same(i, j)]
        sides = (queries, keys, own), (keys, queries, lambda i, j: own(j, i))
        for mine, theirs, left_out in sides:
            positive = (mine[i] @ theirs[i] / temperature).exp()
            negatives = sum(
                (mine[i] @ theirs[j] / temperature).exp() for j in others if not left_out(i, j)
            )
            total = total - (positive / (positive + negatives)).log()
    return total / max(rows, 1) / (2 if reduction == "mean" else 1)


def draw(seed, *shape, dtype=torch.float32):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).requires_grad_()


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


VALIDS = {
    "all": [True] * B,
    "some": [True, False, True, True, False, True, True, False, True],
    "one": [False, False, True] + [False] * 6,
}


@pytest.mark.parametrize("valid", VALIDS.values(), ids=VALIDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_contrastive_and_its_gradients(valid, reduction, temperature):
    queries, keys = draw(0, B, D), draw(1, B, D)
    tau = torch.tensor(temperature, requires_grad=True)
    mask = torch.tensor(valid)
    loss, rows = contrastive(
        gather_rows(queries), gather_rows(keys), tau, mask, reduction=reduction
    )
    exact = [x.detach().double().requires_grad_() for x in (queries, keys, tau)]
    expected = loop_contrastive(*exact, valid, lambda i, j: False, reduction)
    assert rows == sum(valid)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    inexact = gradients(loss, queries, keys, tau)
    for ours, theirs in zip(inexact, gradients(expected, *exact), strict=True):
        scale = 1 / temperature  # of the gradient
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * scale)


def test_rows_that_are_not_valid_change_nothing():
    queries, keys, tau = draw(0, B, D), draw(1, B, D), torch.tensor(0.1)
    valid = torch.tensor(VALIDS["some"])
    before = contrastive(gather_rows(queries), gather_rows(keys), tau, valid).loss
    with torch.no_grad():
        queries[~valid] = 5.0
        keys[~valid] = 0.0
    after = contrastive(gather_rows(queries), gather_rows(keys), tau, valid).loss
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    after.backward()
    assert not queries.grad[~valid].any() and not keys.grad[~valid].any()


def test_no_valid_row_gives_zero_with_zero_gradients():
    queries, keys = draw(0, B, D), torch.zeros(B, D)
    tau = torch.tensor(0.1, requires_grad=True)
    valid = torch.zeros(B, dtype=torch.bool)
    loss, rows = contrastive(gather_rows(queries), gather_rows(keys), tau, valid)
    assert (loss.item(), rows.item()) == (0.0, 0)
    for gradient in gradients(loss, queries, tau):
        assert not gradient.any() and gradient.isfinite().all()


def test_equal_keys_are_no_negatives_of_each_other():
    queries, keys, tau = draw(0, B, D), draw(1, B, D), torch.tensor(0.2)
    groups = [0, 1, 2, 0, 3, 0, 4, 2, 5]
    with torch.no_grad():
        for row, group in enumerate(groups):
            keys[row] = keys[groups.index(group)] * (1 + row)  # same direction, other length
        keys[8] = keys[0] + 0.03 * keys[1]  # alike, but not the same
    valid = torch.tensor(VALIDS["some"])
    expected = loop_contrastive(
        queries, keys, 0.2, valid.tolist(), lambda i, j: groups[i] == groups[j]
    )
    sides = gather_rows(queries), gather_rows(keys)
    by_vector = contrastive(*sides, tau, valid, same_cosine=1 - 1e-5)
    by_id = contrastive(*sides, tau, valid, key_ids=torch.tensor(groups))
    for loss in (by_vector.loss, by_id.loss):
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert contrastive(*sides, tau, valid).loss > by_id.loss


def test_arithmetic_is_float32_for_bfloat16_embeddings_and_under_autocast():
    queries, keys = draw(0, B, D, dtype=torch.bfloat16), draw(1, B, D, dtype=torch.bfloat16)
    valid, tau = torch.ones(B, dtype=torch.bool), torch.tensor(0.01)
    expected = loop_contrastive(queries, keys, 0.01, valid, lambda i, j: False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive(gather_rows(queries), gather_rows(keys), tau, valid).loss
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    assert queries.grad.dtype == torch.bfloat16 and queries.grad.any()


def test_info_nce_of_local_queries_is_a_slice_of_the_global_one():
    queries = torch.nn.functional.normalize(draw(0, B, D), dim=1)
    keys = torch.nn.functional.normalize(draw(1, B, D), dim=1)
    whole = info_nce(queries, keys, 0.1)
    torch.testing.assert_close(info_nce(queries[3:5], keys, 0.1, first=3), whole[3:5])
    expected = loop_contrastive(queries, keys, 0.1, [True] * B, lambda i, j: False)
    back = info_nce(keys, queries, 0.1)
    torch.testing.assert_close((whole + back).mean().double(), expected, rtol=1e-5, atol=1e-6)


DIMS = {"video": 7, "text": 5, "imu": 6}


def make_batch():
    torch.manual_seed(4)
    present = {
        "video": torch.tensor([1, 1, 0, 1, 0, 1, 1, 1, 1]).bool(),
        "text": torch.tensor([0, 1, 1, 1, 0, 1, 1, 1, 1]).bool(),
    }
    embeddings = {name: torch.randn(B, DIMS[name]) * present[name][:, None] for name in present}
    embeddings["text"][5] = embeddings["text"][1]
    numbers = torch.arange(B)
    return Batch(
        torch.zeros(B, 6, 4),
        numbers,
        numbers // 4,
        numbers // 8,
        numbers,
        embeddings,
        present,
        start_s=(numbers % 4).double(),
        span_s=1.5,
    )


def make_neighbours(k):
    draws = torch.Generator().manual_seed(5)
    uid = torch.randint(20, (B, k), generator=draws)
    table = {name: torch.randn(20, dim, generator=draws) for name, dim in DIMS.items()}
    table = {name: torch.nn.functional.normalize(rows, dim=1) for name, rows in table.items()}
    has = {name: torch.rand(20, generator=draws) < 0.8 for name in DIMS}
    valid = torch.rand(B, k, generator=draws) < 0.8
    return Neighbours(
        uid=uid,
        recording=uid // 4,
        session=uid // 8,
        start_s=(uid % 4).double(),
        age=uid,
        score=torch.ones(B, k),
        valid=valid,
        embeddings={name: rows[uid] for name, rows in table.items()},
        present={name: rows[uid] & valid for name, rows in has.items()},
    )


def is_own(query, key, exclude):
    """Whether window ``key`` is ``query`` or, unless only windows count, overlaps it in time."""
    overlaps = query // 4 == key // 4 and abs(query % 4 - key % 4) <= 1.5
    return query == key or (exclude != "window" and overlaps)


def loop_term(name, views, batch, neighbours, temperature, config):
    """One term of the objective, from the definition."""
    source, modality = name.split("_")
    queries = views[0].ss if modality == "imu" else views[0].mm[modality]
    never = lambda i, j: False  # noqa: E731
    if source == "imu":
        if modality == "imu":
            return loop_contrastive(queries, views[1].ss, temperature, [True] * B, never)
        keys = batch.embeddings[modality]
        same = lambda i, j: torch.equal(keys[i], keys[j])  # noqa: E731
        valid = batch.present[modality]
        return loop_contrastive(queries, keys, temperature, valid, same)
    keys, uid = neighbours.embeddings[modality].double(), neighbours.uid
    usable = neighbours.valid & neighbours.present[modality]

    def own(i, j, places):
        return any(is_own(i, int(uid[j, k]), config.exclude) for k in places if usable[j, k])

    if config.combine == "mean":
        sets = [frozenset(uid[i][usable[i]].tolist()) for i in range(B)]
        means = [keys[i][usable[i]].sum(0) if usable[i].any() else keys[i, 0] for i in range(B)]
        same = lambda i, j: sets[i] == sets[j]  # noqa: E731
        valid = usable.any(1)
        own_of_all = lambda i, j: own(i, j, range(uid.shape[1]))  # noqa: E731
        keys = torch.stack(means)
        return loop_contrastive(queries, keys, temperature, valid, same, own=own_of_all)
    total, rows = 0.0, 0
    for k in range(uid.shape[1]):
        count = int(usable[:, k].sum())
        same = lambda i, j, k=k: uid[i, k] == uid[j, k]  # noqa: E731
        own_of_k = lambda i, j, k=k: own(i, j, [k])  # noqa: E731
        total += count * loop_contrastive(
            queries, keys[:, k], temperature, usable[:, k], same, own=own_of_k
        )
        rows += count
    return total / rows


@pytest.mark.parametrize("exclude", ["window", "moment", "recording", "session"])
@pytest.mark.parametrize(("k", "combine"), [(1, "mean"), (3, "mean"), (3, "each")])
def test_objective_is_the_weighted_sum_of_its_terms(k, combine, exclude):
    weights = {
        "imu_video": 0.5,
        "imu_text": 0.25,
        "imu_imu": 1.0,
        "neighbour_video": 2.0,
        "neighbour_text": 0.75,
        "neighbour_imu": 1.5,
    }
    config = ObjectiveConfig.model_validate(
        {"weights": weights, "neighbours": {"k": k, "combine": combine, "exclude": exclude}}
    )
    views = [
        Embeddings(draw(s, B, 3), draw(s + 1, B, 6), {m: draw(s + 2, B, DIMS[m]) for m in DIMS})
        for s in (10, 20)
    ]
    temperatures = {"mm": torch.tensor(0.1), "ss": torch.tensor(0.3)}
    batch, neighbours = make_batch(), make_neighbours(k)
    output = primus_loss(*views, temperatures, batch, neighbours, config)
    total = 0.0
    for name, weight in weights.items():
        temperature = 0.3 if name.endswith("_imu") else 0.1
        expected = loop_term(name, views, batch, neighbours, temperature, config.neighbours)
        torch.testing.assert_close(
            output.terms[name].double(), expected.detach(), rtol=1e-5, atol=1e-5
        )
        total = total + weight * expected
    torch.testing.assert_close(output.total.double(), total, rtol=1e-5, atol=1e-5)
    assert math.isfinite(output.total.item()) and output.total.requires_grad
