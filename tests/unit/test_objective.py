"""Temperatures, which terms are computed, who asks for neighbours, and what is remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from primus_scale.config import Config, NeighboursConfig, ObjectiveConfig, TemperatureConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.model import PrimusModel, Temperatures
from primus_scale.objective.neighbours import (
    describe_neighbours,
    find_neighbours,
    support_entries,
    support_spec,
)
from primus_scale.objective.positives import hash_sets
from primus_scale.objective.terms import (
    FAMILIES,
    TERMS,
    check_objective,
    temperature_configs,
    uses_neighbours,
    with_heads,
)
from primus_scale.sample import Batch
from primus_scale.support import Neighbours, RingSupportSet, SupportSpec
from tests.exclusions import only_uids

DIMS = {"imu": 4, "video": 3, "text": 5}
TEACHERS = {"video": 3, "text": 5, "signal": 2}
NAMES = [term.name for term in TERMS]
TAU = {family: torch.tensor(0.1) for family in FAMILIES}


def weights(**chosen: float) -> ObjectiveConfig:
    """An objective of the chosen terms only."""
    return ObjectiveConfig.model_validate({"weights": {**dict.fromkeys(NAMES, 0.0), **chosen}})


def make_batch(rows: int = 6, video: list[int] | None = None) -> Batch:
    present = torch.tensor(video if video is not None else [1] * rows).bool()
    uid = torch.arange(rows)
    return Batch(
        imu=torch.randn(rows, 6, 8),
        uid=uid,
        recording=uid + 100,
        session=uid + 200,
        label=uid,
        embeddings={
            "video": torch.randn(rows, 3) * present[:, None],
            "text": torch.randn(rows, 5),
            "signal": torch.nn.functional.normalize(torch.randn(rows, 2), dim=1),
        },
        present={
            "video": present,
            **dict.fromkeys(("text", "signal"), torch.ones(rows, dtype=torch.bool)),
        },
    )


def make_view(rows: int = 6) -> Embeddings:
    return Embeddings(
        torch.randn(rows, 9),
        torch.randn(rows, 4, requires_grad=True),
        {m: torch.randn(rows, dim, requires_grad=True) for m, dim in TEACHERS.items()},
        torch.randn(rows, 7, requires_grad=True),
    )


def test_temperatures_start_as_told_and_are_one_for_each_family():
    for mode in ("log", "reference", "fixed"):
        temperatures = Temperatures(
            dict.fromkeys(("mm", "ss"), TemperatureConfig(mode=mode, initial=0.2))
        )()
        assert list(temperatures) == ["mm", "ss"]
        for value in temperatures.values():
            assert value.shape == () and value.item() == pytest.approx(0.2)


@pytest.mark.parametrize(("start", "slope", "bound"), [(-7.0, -1.0, 0.01), (3.0, 1.0, 1.0)])
def test_log_temperature_is_clamped_and_finds_its_way_back(start, slope, bound):
    module = Temperatures(
        dict.fromkeys(("mm", "ss"), TemperatureConfig(mode="log", minimum=0.01, maximum=1.0))
    )
    with torch.no_grad():
        module.value.fill_(start)
    outward = slope * -1 * module()["ss"]  # descending it leads away from the bounds
    assert module()["ss"].item() == pytest.approx(bound)
    outward.backward()
    assert not module.value.grad.any()
    (slope * module()["ss"]).backward()
    assert module.value.grad[1] * slope > 0


def test_reference_temperature_is_unbounded_and_fixed_does_not_learn():
    reference = Temperatures(dict.fromkeys(("mm", "ss"), TemperatureConfig(mode="reference")))
    with torch.no_grad():
        reference.value.fill_(-0.3)
    assert reference()["mm"].item() == pytest.approx(-0.3)
    assert not any(
        p.requires_grad
        for p in Temperatures(
            dict.fromkeys(("mm", "ss"), TemperatureConfig(mode="fixed"))
        ).parameters()
    )


def test_model_gives_embeddings_and_live_temperatures():
    class Encoder(nn.Module):
        def forward(self, imu: torch.Tensor) -> Embeddings:
            return Embeddings(imu, imu, {})

    model = PrimusModel(Encoder(), dict.fromkeys(("mm", "ss"), TemperatureConfig()))
    output = model(torch.ones(2, 6, 8))
    assert output.embeddings.ss.shape == (2, 6, 8)
    output.temperatures["mm"].backward()
    assert model.temperatures.value.grad[0] != 0


@pytest.mark.parametrize("term", NAMES)
def test_terms_without_weight_are_not_computed(term):
    config = weights(**{term: 2.0})
    batch, view0, view1 = make_batch(), make_view(), make_view()
    neighbours = None
    if term == "imu_near":  # two sessions, each with two windows near in time and one far
        two = torch.arange(6) // 3
        starts = torch.tensor([0.0, 2.0, 20.0]).double().repeat(2)
        batch = replace(batch, recording=two, session=two, start_s=starts)
    if uses_neighbours(config):
        support = RingSupportSet(SupportSpec(16, DIMS))
        support.enqueue(support_entries(view1, batch))
        neighbours = find_neighbours(view0, batch, support, config.neighbours)
    output = primus_loss(view0, view1, TAU, batch, neighbours, config)
    assert list(output.terms) == list(output.rows) == [term]
    assert output.total.item() == pytest.approx(2 * output.terms[term].item(), rel=1e-5)
    assert output.terms[term] > 0 and not output.terms[term].requires_grad
    output.total.backward()
    modality = term.split("_")[1]
    heads = {"imu": view0.ss, "near": view1.near, **view0.mm}
    for tensor in (*heads.values(), view0.near):
        assert (tensor.grad is not None) == (tensor is heads[modality])
    assert (view1.ss.grad is not None) == (term == "imu_imu")


@pytest.mark.parametrize("term", ["imu_imu", "neighbour_imu"])
def test_terms_of_imu_need_no_teacher(term):
    """Shards that were never embedded have no flags of teachers at all."""
    config = weights(**{term: 1.0}).model_copy(update={"neighbours": NeighboursConfig(query="imu")})
    batch, view0, view1 = make_batch(), make_view(), make_view()
    bare = replace(batch, embeddings={}, present={})
    found = []
    for one in (batch, bare):
        neighbours = None
        if term == "neighbour_imu":
            support = RingSupportSet(SupportSpec(16, {"imu": 4}, imu_answers="all"))
            past = replace(one, uid=one.uid + 50, recording=one.recording + 50)
            support.enqueue(support_entries(view1, past))
            neighbours = find_neighbours(view0, one, support, config.neighbours)
        found.append(primus_loss(view0, view1, TAU, one, neighbours, config).total)
    assert found[0] > 0 and torch.equal(*found)


def test_invalid_neighbours_give_zero_with_a_gradient():
    config = weights(neighbour_video=1.0)
    batch, view0 = make_batch(), make_view()
    empty = RingSupportSet(SupportSpec(16, DIMS, minimum_fill=2))
    neighbours = find_neighbours(view0, batch, empty, config.neighbours)
    output = primus_loss(view0, make_view(), TAU, batch, neighbours, config)
    output.total.backward()
    assert output.total.item() == 0 and output.rows["neighbour_video"].item() == 0
    assert view0.mm["video"].grad is not None and not view0.mm["video"].grad.any()


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


def test_all_rows_are_remembered_without_gradient():
    batch, view = make_batch(video=[1, 1, 0, 1, 1, 1]), make_view()
    entries = support_entries(view, batch)
    assert entries.uid.tolist() == [0, 1, 2, 3, 4, 5]
    assert entries.recording.tolist() == [100, 101, 102, 103, 104, 105]
    assert entries.session.tolist() == [200, 201, 202, 203, 204, 205]
    assert entries.present["video"].tolist() == [True, True, False, True, True, True]
    assert torch.equal(entries.embeddings["imu"], nn.functional.normalize(view.ss, dim=1))
    assert not entries.embeddings["imu"].requires_grad
    assert entries.present["imu"].all() and set(entries.present) == {"imu", "video", "text"}


def test_check_names_the_weight_without_data():
    check_objective(ObjectiveConfig(), ["video", "text"])
    check_objective(weights(imu_imu=1.0, neighbour_imu=1.0), [])
    with pytest.raises(ValueError, match=r"objective.weights.imu_text is 0.5.*no text embeddings"):
        check_objective(ObjectiveConfig(), ["video"])
    with pytest.raises(ValueError, match=r"objective.weights.neighbour_video is 1"):
        check_objective(weights(neighbour_video=1.0), ["text"])
    with pytest.raises(ValueError, match=r"objective\.weights are 0"):
        check_objective(weights(), ["video"])
    with pytest.raises(ValueError, match=r"imu_signal is 1 .* shards embed --signal handcrafted`"):
        check_objective(weights(imu_signal=1.0), ["video", "text"])


def test_the_signal_has_a_head_and_a_temperature_only_where_its_term_needs_them():
    spaces = {"video": 1, "signal": 2}
    contrast = {"weights": {"imu_signal": 1.0}, "signal": {"loss": "contrastive"}}
    for changes, heads, families in (
        ({}, {"video"}, ["mm", "ss"]),
        ({"weights": {"imu_signal": 1.0}}, {"video", "signal"}, ["mm", "ss"]),
        (contrast, {"video", "signal"}, ["mm", "ss", "signal"]),
    ):
        config = ObjectiveConfig.model_validate(changes)
        assert with_heads(config, spaces).keys() == heads
        assert list(temperature_configs(config)) == families


@pytest.mark.parametrize(
    ("terms", "query", "kept"),
    [
        (["imu_imu", "imu_video"], "video", None),
        (["neighbour_imu"], "imu", {"imu"}),
        (["neighbour_imu"], "video", {"imu", "video"}),
        (["neighbour_text"], "imu", {"imu", "text"}),
        (NAMES, "video", {"imu", "video", "text"}),
    ],
)
def test_support_set_keeps_what_the_objective_uses(terms, query, kept):
    config = Config.model_validate(
        {
            "name": "n",
            "output": "o",
            "data": {"train": ["t"], "session_windows": 2},
            "support": {"capacity": 32, "minimum_fill": 2},
            "objective": {
                "weights": dict.fromkeys(NAMES, 0.0) | dict.fromkeys(terms, 1.0),
                "neighbours": {"query": query},
            },
        }
    )
    spec = support_spec(config.objective, config.support, DIMS)
    if kept is None:
        assert spec is None
        return
    support = RingSupportSet(spec)
    assert (support.spec.capacity, support.fill) == (32, 0)
    assert support.spec.dims == {name: DIMS[name] for name in kept}
    # Only neighbours that are to teach video or text must hold them.
    imu_only = make_batch(video=[0] * 6)
    imu_only.present["text"][:] = False
    support.enqueue(support_entries(make_view(), imu_only))
    found = support.search(make_view().ss, 1, only_uids(imu_only.uid), "imu")
    assert found.valid.all().item() == (kept <= {"imu", "video"} and "neighbour_video" not in terms)
