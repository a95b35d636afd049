"""Temperatures, which terms are computed, and what is remembered."""

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
    find_neighbours,
    support_entries,
    support_spec,
)
from primus_scale.objective.terms import (
    check_objective,
    temperature_configs,
    uses_neighbours,
    with_heads,
)
from primus_scale.support import RingSupportSet, SupportSpec
from tests.exclusions import only_uids
from tests.objective_factory import DIMS, NAMES, TAU, make_batch, make_view, weights


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
