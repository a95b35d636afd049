"""Who asks for neighbours, which ones may be found, and what is no negative of a query."""

from __future__ import annotations

import pytest
import torch

from primus_scale.config import NeighboursConfig
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.neighbours import (
    describe_neighbours,
    find_neighbours,
    support_entries,
)
from primus_scale.objective.positives import hash_sets
from primus_scale.support import Neighbours, RingSupportSet, SupportSpec
from tests.exclusions import only_uids
from tests.objective_factory import DIMS, TAU, make_batch, make_view, weights


def test_rows_without_the_query_modality_ask_by_imu():
    view, batch = make_view(), make_batch(video=[1, 1, 0, 1, 0, 1])
    support = RingSupportSet(SupportSpec(64, DIMS, minimum_fill=2))
    stored = make_batch(rows=30)
    stored.uid += 50
    support.enqueue(support_entries(make_view(30), stored))
    found = find_neighbours(view, batch, support, NeighboursConfig(k=2))
    assert found.valid.all()
    for row in range(6):
        modality = "video" if batch.present["video"][row] else "imu"
        query = batch.embeddings["video"] if modality == "video" else view.ss
        one = slice(row, row + 1)
        expected = support.search(query[one], 2, only_uids(batch.uid[one]), modality)
        assert torch.equal(found.uid[one], expected.uid)
        assert torch.equal(found.embeddings["text"][one], expected.embeddings["text"])
    by_imu = find_neighbours(view, batch, support, NeighboursConfig(query="imu"))
    everything = support.search(view.ss, 1, only_uids(batch.uid), "imu")
    assert torch.equal(by_imu.uid, everything.uid)


@pytest.mark.parametrize("query", ["video", "imu"])
@pytest.mark.parametrize(
    ("exclude", "expected"),
    [("window", [1, 2, 3, 4, 5]), ("moment", [3, 4, 5]), ("recording", [5])],
)
def test_neighbours_are_of_another_moment_or_recording(exclude, expected, query):
    """Window 0 of 5 s, the same moment by another device, an overlapping one, later ones."""
    batch, view = make_batch(), make_view()
    batch.recording = torch.tensor([7, 7, 7, 7, 7, 8])
    batch.start_s = torch.tensor([0.0, 0.01, 4.5, 5.0, 60.0, 0.0]).double()
    batch.span_s = 4.98
    support = RingSupportSet(SupportSpec(16, DIMS, minimum_fill=6))
    support.enqueue(support_entries(view, batch))
    config = NeighboursConfig.model_validate({"k": 6, "exclude": exclude, "query": query})
    found = find_neighbours(view, batch, support, config)
    assert sorted(found.uid[0, found.valid[0]].tolist()) == expected
    assert sorted(found.uid[5, found.valid[5]].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("query", ["video", "imu"])
@pytest.mark.parametrize(
    ("exclude", "within", "expected"),
    [
        ("window", "session", [2, 3, 4]),
        ("moment", "session", [3, 4]),
        ("recording", "session", [4]),
        ("session", "all", [5]),
    ],
)
def test_neighbours_are_of_the_own_session_or_of_others(exclude, within, expected, query):
    """Window 0; its moment by another device; its session: overlapping, later, the day after."""
    batch, view = make_batch(), make_view()
    batch.recording = torch.tensor([7, 7, 7, 7, 8, 9])
    batch.session = torch.tensor([1, 2, 1, 1, 1, 3])
    batch.start_s = torch.tensor([0.0, 0.01, 4.5, 60.0, 0.0, 0.0]).double()
    batch.span_s = 4.98
    support = RingSupportSet(SupportSpec(16, DIMS, minimum_fill=6))
    support.enqueue(support_entries(view, batch))
    config = NeighboursConfig.model_validate(
        {"k": 6, "exclude": exclude, "within": within, "query": query}
    )
    found = find_neighbours(view, batch, support, config)
    assert sorted(found.uid[0, found.valid[0]].tolist()) == expected
    assert found.valid[5].any() == (within == "all"), "its session holds no other window"


def test_no_neighbours_are_left_by_both_masks_of_the_session():
    with pytest.raises(ValueError, match=r"leave no neighbours; set exclude=moment"):
        NeighboursConfig(exclude="session", within="session")


def test_runs_are_told_where_a_session_must_be_of_several_recordings():
    told = describe_neighbours(NeighboursConfig(exclude="recording", within="session"))
    assert "other recordings of its session" in told and "--session-by person" in told
    for config in (NeighboursConfig(exclude="recording"), NeighboursConfig(within="session")):
        assert describe_neighbours(config) is None


def test_a_neighbour_within_the_session_is_no_negative_of_its_own_moment():
    """The neighbours of rows 0 and 1 are each other, as an earlier epoch added them."""
    batch, view0 = make_batch(3), make_view(3)
    batch.session = torch.tensor([1, 1, 2])
    past, past_view = make_batch(4), make_view(4)
    past.session = torch.tensor([1, 1, 2, 2])
    support = RingSupportSet(SupportSpec(16, DIMS, minimum_fill=1))
    support.enqueue(support_entries(past_view, past))
    config = weights(neighbour_imu=1.0).model_copy(
        update={"neighbours": NeighboursConfig(within="session", query="imu")}
    )
    found = find_neighbours(view0, batch, support, config.neighbours)
    assert found.valid.all() and found.uid[:, 0].tolist() == [1, 0, 3]
    output = primus_loss(view0, make_view(3), TAU, batch, found, config)
    queries = torch.nn.functional.normalize(view0.ss.detach().double(), dim=1)
    keys = torch.nn.functional.normalize(past_view.ss.detach()[[1, 0, 3]].double(), dim=1)
    logits = queries @ keys.T / 0.1
    logits[0, 1] = logits[1, 0] = -torch.inf
    rows = torch.arange(3)
    expected = sum(torch.nn.functional.cross_entropy(side, rows) for side in (logits, logits.T))
    torch.testing.assert_close(output.total.detach().double(), expected, rtol=1e-5, atol=1e-5)


def test_neighbours_of_unknown_time_are_told_apart_by_window_and_recording():
    batch, view = make_batch(), make_view()
    batch.recording = batch.recording // 3
    support = RingSupportSet(SupportSpec(16, DIMS, minimum_fill=6))
    support.enqueue(support_entries(view, batch))
    for exclude, others in (("window", 5), ("moment", 5), ("recording", 4)):
        config = NeighboursConfig.model_validate({"k": 6, "exclude": exclude})
        found = find_neighbours(view, batch, support, config)
        assert int(found.valid[0].sum()) == others


def test_sets_of_neighbours_are_told_apart():
    everyone = torch.ones(1, 3, dtype=torch.bool)

    def of(*uids: int) -> int:
        return int(hash_sets(torch.tensor([[*uids, 0]]), everyone & torch.tensor([1, 1, 0]).bool()))

    assert of(1, 4) != of(2, 3) and of(0, 5) != of(5, 5) and of(-1, 1) != of(-2, 2)
    assert of(2**62, -(2**62)) != of(7, -7)
    assert of(1, 4) == of(4, 1)
    number = int(hash_sets(torch.tensor([[0]]), torch.tensor([[True]])))
    # SplitMix64's first number from the seed 0, as its authors' program prints it
    assert number % 2**64 == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("exclude", ["window", "moment"])
def test_a_mean_of_neighbours_is_no_negative_of_any_of_their_moments(exclude):
    """Row 1's key holds row 0's window of the past, row 2's another device's view of it."""
    batch, view0 = make_batch(3), make_view(3)
    batch.recording = torch.tensor([7, 8, 9])
    batch.start_s = torch.zeros(3).double()
    batch.span_s = 4.98
    keys = torch.nn.functional.normalize(torch.randn(3, 2, 4), dim=2)
    found = Neighbours(
        uid=torch.tensor([[50, 51], [0, 52], [53, 54]]),
        recording=torch.tensor([[30, 31], [7, 32], [33, 7]]),
        session=torch.zeros(3, 2).long(),
        age=torch.zeros(3, 2).long(),
        score=torch.zeros(3, 2),
        valid=torch.ones(3, 2, dtype=torch.bool),
        embeddings={"imu": keys},
        present={"imu": torch.ones(3, 2, dtype=torch.bool)},
        start_s=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 4.5]]),
    )
    config = weights(neighbour_imu=1.0).model_copy(
        update={"neighbours": NeighboursConfig.model_validate({"k": 2, "exclude": exclude})}
    )
    output = primus_loss(view0, make_view(3), TAU, batch, found, config)
    queries = torch.nn.functional.normalize(view0.ss.detach(), dim=1)
    logits = queries @ torch.nn.functional.normalize(keys.sum(1), dim=1).T / 0.1
    logits[0, 1] = -torch.inf
    if exclude == "moment":
        logits[0, 2] = -torch.inf
    rows = torch.arange(3)
    expected = sum(torch.nn.functional.cross_entropy(side, rows) for side in (logits, logits.T))
    torch.testing.assert_close(output.total.detach(), expected)


def test_a_set_without_the_query_modality_is_asked_by_imu():
    view, batch = make_view(), make_batch()
    support = RingSupportSet(SupportSpec(64, {"imu": 4}, imu_answers="all"))
    support.enqueue(support_entries(make_view(), batch))
    assert find_neighbours(view, batch, support, NeighboursConfig(query="video")).valid.all()
