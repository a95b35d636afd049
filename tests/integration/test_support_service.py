"""The support service on real Ray actors: equal to the ring in one process, and killed."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

from primus_scale.config import SupportConfig
from primus_scale.support import (
    Exclusion,
    Neighbours,
    RingSupportSet,
    SupportEntries,
    SupportSet,
    SupportSpec,
)
from primus_scale.support.base import ROW_FIELDS
from primus_scale.support.service import ServiceSupportSet
from shards.tasks.ray_cluster import ray_cluster
from tests.exclusions import only_uids
from tests.integration.tiny import (
    LAUNCHER,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)

DIMS = {"imu": 8, "video": 12}
BATCH, K, STEPS = 10, 3, 80
SPEC = SupportSpec(90, DIMS, minimum_fill=16, storage="float16")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(2):
        yield


def service(actors: int, synchronous: bool = True, **settings: Any) -> ServiceSupportSet:
    config = SupportConfig(home="service", actors=actors, synchronous=synchronous, **settings)
    return ServiceSupportSet(SPEC, config)


def fill(served: ServiceSupportSet) -> None:
    """As many entries as it takes."""
    for step in range(9):
        served.enqueue(make_entries(step))
    served.flush()


def make_entries(step: int) -> SupportEntries:
    """A batch whose windows come again every 130 entries, some without video."""
    draws = torch.Generator().manual_seed(step)
    uid = (torch.arange(BATCH) + step * BATCH) % 130
    return SupportEntries(
        uid,
        uid // 7,
        uid // 14 + 1000,
        {name: torch.randn(BATCH, dim, generator=draws) for name, dim in DIMS.items()},
        {
            "imu": torch.ones(BATCH, dtype=torch.bool),
            "video": torch.rand(BATCH, generator=draws) < 0.7,
        },
        (uid % 7) * 2.5,
    )


def exclude(batch: SupportEntries, session: str | None = None) -> Exclusion:
    """Windows of 5 s, of which a recording holds one each 2.5 s: one before and one after."""
    return Exclusion(batch.origin, 4.98, session)


def search(support: SupportSet, step: int, modality: str, session: str | None = None) -> Neighbours:
    batch = make_entries(step)
    found = support.search(batch.embeddings[modality], K, exclude(batch, session), modality)
    if session is not None:
        same_session = found.session == batch.session[:, None]
        assert (~found.valid | (same_session == (session == "other"))).all()
    same_recording = found.recording == batch.recording[:, None]
    apart_s = (found.start_s - batch.start_s[:, None]).abs()
    assert (~same_recording | (apart_s >= 5) | ~found.valid).all()
    return found


def assert_same(ours: Neighbours, theirs: Neighbours) -> None:
    assert torch.equal(ours.valid, theirs.valid)
    at = ours.valid
    for name in ROW_FIELDS:
        assert torch.equal(getattr(ours, name)[at], getattr(theirs, name)[at]), name
    for name in DIMS:
        assert torch.equal(ours.embeddings[name][at], theirs.embeddings[name][at])
        assert torch.equal(ours.present[name][at], theirs.present[name][at])


def test_equals_the_ring_in_the_process_over_many_steps_and_a_resume(tmp_path: Path) -> None:
    ring, served = RingSupportSet(SPEC), service(3)
    found: Counter[str | None] = Counter()
    for step in range(STEPS):
        if step == STEPS // 2:  # another number of actors goes on, and the ring from their snapshot
            with closing(served):
                served.flush()
                served.save(tmp_path)
            ring, served = RingSupportSet(SPEC), service(2)
            ring.load(tmp_path)
            served.load(tmp_path)
        for modality, session in product(DIMS, (None, "own", "other")):
            ours, theirs = (search(each, step, modality, session) for each in (served, ring))
            assert_same(ours, theirs)
            found[session] += int(ours.valid.sum())
        for each in (served, ring):
            each.enqueue(make_entries(step))
    assert min(found.values()) > STEPS * BATCH * K / 2, "hardly anything was compared"
    assert served.figures()["fill"] == ring.figures()["fill"] == 90
    served.close()


def actor_processes(served: ServiceSupportSet) -> list[int]:
    """Process numbers of the actors."""
    statuses = ray.get([actor.status.remote() for actor in served._started])
    return [int(status.where.rpartition(" ")[2]) for status in statuses]


def search_until(served: ServiceSupportSet, figure: str, value: float) -> Neighbours:
    """What the first search finds after which a figure of the service is ``value``."""
    found: list[Neighbours] = []

    def searched() -> bool:
        found[:] = [search(served, 5, "imu")]
        return served.figures()[figure] == value

    wait_until(searched)
    return found[0]


def test_killed_actor_is_left_out_and_comes_back_with_what_it_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with closing(service(2, synchronous=False)) as served:
        fill(served)
        served.save(tmp_path)
        served.saved(tmp_path)
        whole = search(served, 5, "imu")
        assert whole.valid.all()

        os.kill(actor_processes(served)[1], signal.SIGKILL)
        halved = search_until(served, "actors_out", 1)
        assert halved.valid.all(), "the other actor still answers"
        assert (halved.score[:, 0] <= whole.score[:, 0]).all()
        assert (halved.score[:, 0] < whole.score[:, 0]).any()
        for name in DIMS:
            assert (halved.embeddings[name].norm(dim=2) > 0.99).all()

        search_until(served, "actors_out", 0)
        assert_same(search_until(served, "fill", 90), whole)
    assert "support actor 1" in caplog.text and "is dead" in caplog.text
    assert "support actor 1 is back" in caplog.text


def test_all_actors_dead_gives_no_neighbours_rather_than_zeros() -> None:
    with closing(service(1, synchronous=False)) as served:
        fill(served)
        os.kill(actor_processes(served)[0], signal.SIGKILL)
        assert not search_until(served, "actors_out", 1).valid.any()
        served.enqueue(make_entries(9))  # lost or not, without an error
        search_until(served, "actors_out", 0)
        served.enqueue(make_entries(10))
        served.flush()
        found = search(served, 5, "imu")
        assert int(found.valid.sum()) > 0, "traffic fills it again"
        since = {*make_entries(9).uid.tolist(), *make_entries(10).uid.tolist()}
        assert set(found.uid[found.valid].tolist()) <= since


def test_answers_asked_ahead_are_those_of_the_entries_held_then() -> None:
    with closing(service(2, synchronous=False)) as served:
        fill(served)
        batch = make_entries(5)
        expected = [search(served, 5, "imu", session) for session in (None, "other")]
        answers = [
            served.start_search(batch.embeddings["imu"], K, exclude(batch, session), "imu")
            for session in (None, "other")
        ]
        search(served, 6, "imu")  # lookups are done in turn: those that were asked are over
        for step in range(9, 18):
            served.enqueue(make_entries(step))
        served.flush()
        for answer, earlier in zip(answers, expected, strict=True):
            assert_same(answer(), earlier)
        assert not torch.equal(search(served, 5, "imu").uid, expected[0].uid)


def test_silent_actor_is_left_out_and_keeps_what_it_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with closing(service(2, synchronous=False, timeout_s=1.0)) as served:
        fill(served)
        whole = search(served, 5, "imu")
        halted = psutil.Process(actor_processes(served)[0])
        halted.suspend()
        try:
            halved = search(served, 5, "imu")
            assert served.figures()["actors_out"] == 1
            assert (halved.score[:, 0] < whole.score[:, 0]).any()
        finally:
            halted.resume()
        search_until(served, "actors_out", 0)
        assert_same(search(served, 5, "imu"), whole)
    assert "is silent for 1 s" in caplog.text


def test_actors_with_inverted_lists_find_what_was_put_in() -> None:
    count, draws = 80_000, torch.Generator().manual_seed(0)
    spec = SupportSpec(count, DIMS, minimum_fill=16, storage="float16", index="ivf")
    vectors = {name: torch.randn(count, dim, generator=draws) for name, dim in DIMS.items()}
    uid, present = torch.arange(count), dict.fromkeys(DIMS, torch.ones(count, dtype=torch.bool))
    config = SupportConfig(home="service", actors=2, synchronous=True, timeout_s=300)
    with closing(ServiceSupportSet(spec, config)) as served:
        everything = SupportEntries(uid, uid, uid, vectors, present)
        for rows in uid.split(8192):
            served.enqueue(everything.at(rows))
        chosen = torch.randint(count, (500,), generator=draws)
        moved = vectors["video"][chosen] + 0.05 * torch.randn(500, DIMS["video"], generator=draws)
        found = served.search(moved, 1, only_uids(torch.full((500,), -5)), "video")
        assert (found.uid[:, 0] == chosen).float().mean() > 0.98


def test_a_machine_that_does_not_see_the_run_is_named(tmp_path: Path) -> None:
    with (
        closing(service(1)) as served,
        pytest.raises(FileNotFoundError, match=r"does not see .*gone; set output to storage"),
    ):
        served.save(tmp_path / "gone")


def test_training_with_the_service_equals_training_with_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks, a resume half-way, the ring in float16 as well: equal losses to the last bit."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    # Else Ray takes the machine's address for 127.0.0.1, on which the test's cluster listens.
    monkeypatch.setenv(ENABLE_RAY_CLUSTERS_ENV_VAR, "0")
    shards = write_shards(tmp_path / "shards", windows=44)
    common = ("train.steps=8", "support.storage=float16", "train.pictures_every=100")
    overrides = {
        "ring": (),
        "served": ("support.home=service", "support.actors=2", "support.synchronous=true"),
    }
    for name, own in overrides.items():
        config = tiny_config(tmp_path / name, shards, *common, *own)
        file = str(write_config(config, tmp_path / f"{name}.yaml"))
        for steps in (4, 8):
            ranks = start_ranks(2, LAUNCHER, "--config", file, f"train.steps={steps}")
            assert wait_for(ranks) == [0, 0]
    assert losses(tmp_path / "served") == losses(tmp_path / "ring")
    last = json.loads((tmp_path / "served/metrics.jsonl").read_text().splitlines()[-1])
    assert last["support/fill"] == 20
    assert last["support/actors_out"] == 0
