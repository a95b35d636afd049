"""Tasks on a real Ray cluster that was there before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from shards.parallel import Failed, run_tasks
from tests.integration.tiny import ROOT, free_port, started, wait_until
from tests.square_worker import make_worker


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of two cores at RAY_ADDRESS."""
    port = free_port()
    ray_program = str(Path(sys.executable).with_name("ray"))
    options = ("--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--block")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(ROOT))  # of the workers, who import the tests' worker
        start = (sys.executable, ray_program, "start", "--head", f"--port={port}", *options)
        with started(*start, "--node-ip-address=127.0.0.1"):
            patch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            health = (sys.executable, ray_program, "health-check")
            wait_until(lambda: subprocess.run(health, capture_output=True).returncode == 0)
            yield


def run(items: list[int], **options: object) -> dict[int, object]:
    return dict(run_tasks(make_worker, items, **{"workers": 2, **options}))  # type: ignore[arg-type]


@pytest.mark.usefixtures("cluster")
def test_results_come_with_the_places_of_their_items() -> None:
    items = list(range(-20, 0))
    assert run(items) == {place: item * item for place, item in enumerate(items)}
    assert not ray.is_initialized(), "the connection ends with the work"


@pytest.mark.usefixtures("cluster")
def test_an_error_comes_out_as_it_was_raised() -> None:
    with pytest.raises(ValueError, match=r"^seven is not to be squared; leave it out$"):
        run([1, 2, 7, 3])


@pytest.mark.usefixtures("cluster")
def test_an_item_that_kills_its_worker_twice_is_reported_and_the_others_are_done() -> None:
    results = run([2, 13, 3, 4])
    failed = results.pop(1)
    assert isinstance(failed, Failed)
    assert "died 2 times" in failed.why
    assert results == {0: 4, 2: 9, 3: 16}


@pytest.mark.usefixtures("cluster")
def test_workers_beyond_the_cluster_are_left_out_with_a_word() -> None:
    told: list[str] = []
    assert run([1, 2, 3, 4], workers=4, report=told.append) == {0: 1, 1: 4, 2: 9, 3: 16}
    assert told == ["the cluster has room for 2 of 4 workers"]
    with pytest.raises(ValueError, match="a worker needs 3 CPU, the cluster has 2 CPU"):
        run([1, 2], threads=3)
    with pytest.raises(ValueError, match="needs 1 CPU and 1 GPU, the cluster has 2 CPU, 0 GPU"):
        run([1, 2], gpus=1.0)


def test_one_worker_without_a_cluster_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = os.getpid()
    results = dict(run_tasks(lambda: lambda item: (item, os.getpid()), [5, 6], workers=1))
    assert results == {0: (5, here), 1: (6, here)}
    assert dict(run_tasks(make_worker, [], workers=8)) == {}
