"""The contrastive loss and the objective against loops over pairs in float64."""

from __future__ import annotations

import math

import pytest
import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective import pairs
from primus_scale.objective.contrast import (
    InfoNce,
    Negatives,
    SameMoment,
    SigmoidLoss,
    ids_of_equal,
    share_of,
    unit_rows,
)
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.pairs import PairSum, sum_pairs
from primus_scale.sample import Batch, Origin
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


def contrastive(queries, keys, temperature, valid, ids=None, reduction="sum", same_moment=None):
    """The loss by the program, of one process."""
    loss = InfoNce(Negatives(valid, ids, same_moment), reduction)
    [total] = sum_pairs([PairSum(loss, unit_rows(queries), unit_rows(keys), temperature)])
    return share_of(total, valid.sum())


@pytest.fixture(params=[None, 4], ids=["whole", "in blocks"])
def blocks(request, monkeypatch):
    """Logits kept whole, and computed again in blocks of four rows."""
    if request.param:
        monkeypatch.setattr(pairs, "KEPT_PAIRS", 0)
        monkeypatch.setattr(pairs, "ROWS_AT_ONCE", request.param)


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


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("valid", VALIDS.values(), ids=VALIDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_contrastive_and_its_gradients(valid, reduction, temperature):
    queries, keys = draw(0, B, D), draw(1, B, D)
    tau = torch.tensor(temperature, requires_grad=True)
    mask = torch.tensor(valid)
    loss, rows = contrastive(queries, keys, tau, mask, reduction=reduction)
    exact = [x.detach().double().requires_grad_() for x in (queries, keys, tau)]
    expected = loop_contrastive(*exact, valid, lambda i, j: False, reduction)
    assert rows == sum(valid)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    inexact = gradients(loss, queries, keys, tau)
    for ours, theirs in zip(inexact, gradients(expected, *exact), strict=True):
        scale = 1 / temperature  # of the gradient
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * scale)


def own_moments():
    """Windows of the queries and of the keys, some of one moment; not all neighbours are valid."""
    numbers = torch.arange(B)
    keys = (numbers[:, None] + torch.tensor([1, 3])) % B
    there = torch.ones(B, 2, dtype=torch.bool)
    there[::4, 1] = False
    windows, own = (Origin(n, n // 3, n * 0, (n % 3).double()) for n in (keys, numbers))

    def is_near(i, key):
        return abs(i - key) <= 1 and i // 3 == key // 3

    used = [[int(key) for key in keys[j][there[j]]] for j in range(B)]
    near = [[any(is_near(i, key) for key in used[j]) for j in range(B)] for i in range(B)]
    return SameMoment(own, windows, there, 1.0), near


@pytest.mark.usefixtures("blocks")
def test_everything_at_once_is_exact_in_float64():
    """All masks, both sides and the temperature, to twelve digits."""
    queries, keys = draw(0, B, D, dtype=torch.float64), draw(1, B, D, dtype=torch.float64)
    tau = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    valid, groups = VALIDS["some"], [0, 1, 2, 0, 3, 0, 4, 2, 5]
    same_moment, near = own_moments()
    ours = contrastive(
        queries, keys, tau, torch.tensor(valid), torch.tensor(groups), "mean", same_moment
    ).loss
    assert any(near[i][j] and i != j and valid[i] and valid[j] for i in range(B) for j in range(B))
    theirs = loop_contrastive(
        queries,
        keys,
        tau,
        valid,
        lambda i, j: groups[i] == groups[j],
        "mean",
        own=lambda i, j: near[i][j],
    )
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(ours, theirs, **exact)
    inputs = queries, keys, tau
    for one, other in zip(
        gradients(3 * ours, *inputs), gradients(3 * theirs, *inputs), strict=True
    ):
        torch.testing.assert_close(one, other, **exact)
        assert one.any()


@pytest.mark.usefixtures("blocks")
def test_sigmoid_loss_is_exact_in_float64():
    queries, keys = draw(0, B, D, dtype=torch.float64), draw(1, B, D, dtype=torch.float64)
    tau, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, -3.0))
    valid, ids = torch.tensor(VALIDS["some"]), torch.tensor([0, 1, 2, 0, 3, 0, 4, 2, 5])
    loss = SigmoidLoss(Negatives(valid, ids))
    [total] = sum_pairs([PairSum(loss, unit_rows(queries), unit_rows(keys), tau, bias)])
    logits = unit_rows(queries) @ unit_rows(keys).T / tau + bias
    expected = logits.new_zeros(())
    for i, j in ((i, j) for i in range(B) for j in range(B) if valid[i] and valid[j]):
        if i == j or ids[i] != ids[j]:
            sign = 1 if i == j else -1
            expected = expected - (1 / (1 + (-sign * logits[i, j]).exp())).log()
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(total, expected, **exact)
    inputs = queries, keys, tau, bias
    for one, other in zip(gradients(total, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(one, other, **exact)
        assert one.any()


@pytest.mark.usefixtures("blocks")
def test_rows_that_are_not_valid_change_nothing():
    queries, keys, tau = draw(0, B, D), draw(1, B, D), torch.tensor(0.1)
    valid = torch.tensor(VALIDS["some"])
    before = contrastive(queries, keys, tau, valid).loss
    with torch.no_grad():
        queries[~valid] = 5.0
        keys[~valid] = 0.0
    after = contrastive(queries, keys, tau, valid).loss
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    after.backward()
    assert not queries.grad[~valid].any() and not keys.grad[~valid].any()


def test_no_valid_row_gives_zero_with_zero_gradients():
    queries, keys = draw(0, B, D), torch.zeros(B, D)
    tau = torch.tensor(0.1, requires_grad=True)
    valid = torch.zeros(B, dtype=torch.bool)
    loss, rows = contrastive(queries, keys, tau, valid)
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
    ids = ids_of_equal(unit_rows(keys), 1 - 1e-5)
    assert ids.tolist() == [groups.index(group) for group in groups]
    loss = contrastive(queries, keys, tau, valid, ids).loss
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert contrastive(queries, keys, tau, valid).loss > loss


def test_equal_keys_are_found_whatever_few_elements_say():
    """Of 300 keys, some are equal up to rounding, and many alike in the elements that screen."""
    keys = draw(3, 300, 128).detach()
    keys[100:200, :: 128 // 32] = keys[0, :: 128 // 32]
    keys[[150, 250, 299]] = keys[20] * torch.tensor([[2.0], [1.0], [1 + 1e-4]])
    keys[[7, 90]] = 0.0
    unit = unit_rows(keys)
    same = unit @ unit.T > 1 - 1e-5
    expected = [row.nonzero()[0, 0].item() if row.any() else i for i, row in enumerate(same)]
    assert expected[250] == expected[299] == 20 and expected[90] == 90
    assert ids_of_equal(unit, 1 - 1e-5).tolist() == expected


def test_arithmetic_is_float32_for_bfloat16_embeddings_and_under_autocast():
    queries, keys = draw(0, B, D, dtype=torch.bfloat16), draw(1, B, D, dtype=torch.bfloat16)
    valid, tau = torch.ones(B, dtype=torch.bool), torch.tensor(0.01)
    expected = loop_contrastive(queries, keys, 0.01, valid, lambda i, j: False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive(queries, keys, tau, valid).loss
        loss.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    assert queries.grad.dtype == torch.bfloat16 and queries.grad.any()


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
