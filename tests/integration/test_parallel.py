"""Tasks on a real Ray cluster that was there before."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import ray

from shards.tasks import ray_workers as parallel
from shards.tasks.local import Failed
from shards.tasks.workers import run_tasks
from tests.square_worker import make_worker


def run(items: list[int], **options: object) -> dict[int, object]:
    return dict(run_tasks(make_worker, items, **{"workers": 2, **options}))  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_cluster")
def test_results_come_with_the_places_of_their_items() -> None:
    items = list(range(-20, 0))
    assert run(items) == {place: item * item for place, item in enumerate(items)}
    assert not ray.is_initialized(), "the connection ends with the work"


@pytest.mark.usefixtures("on_cluster")
def test_an_error_comes_out_as_it_was_raised() -> None:
    with pytest.raises(ValueError, match=r"^seven is not to be squared; leave it out$"):
        run([1, 2, 7, 3])


@pytest.mark.usefixtures("on_cluster")
def test_an_item_that_kills_its_worker_twice_is_reported_and_the_others_are_done() -> None:
    results = run([2, 13, 3, 4])
    failed = results.pop(1)
    assert isinstance(failed, Failed)
    assert "died 2 times" in failed.why
    assert results == {0: 4, 2: 9, 3: 16}


@pytest.mark.usefixtures("on_cluster")
def test_workers_beyond_the_cluster_do_no_harm() -> None:
    assert run([1, 2, 3, 4], workers=4) == {0: 1, 1: 4, 2: 9, 3: 16}


@pytest.mark.usefixtures("on_cluster")
def test_a_worker_that_no_machine_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 3 CPU, machines of the cluster have up to 2 CPU"):
        run([1, 2], threads=3)
    with pytest.raises(ValueError, match=r"needs 1 CPU and 1 GPU, .* up to 2 CPU, 0 GPU"):
        run([1, 2], gpus=1.0)


@pytest.mark.usefixtures("on_cluster")
def test_that_there_is_no_room_is_told_and_the_work_done_when_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "WAITING_NOTICE_S", 0.5)
    told: list[str] = []
    with occupied_cluster(cpus=2) as leave:

        def tell(line: str) -> None:
            told.append(line)
            leave()

        assert run([1, 2, 3], report=tell) == {0: 1, 1: 4, 2: 9}
    assert told
    assert "no room for one now; waiting" in told[0]


@contextmanager
def occupied_cluster(cpus: int) -> Iterator[Callable[[], None]]:
    """Another program that holds so many cores, until the function that is given is called."""
    program = f"""
import ray, sys
ray.init(logging_level="ERROR")
group = ray.util.placement_group([{{"CPU": {cpus}}}])
ray.get(group.ready())
print("held", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other.stdin.close
        finally:
            other.kill()


def test_one_worker_without_a_cluster_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = os.getpid()
    results = dict(run_tasks(lambda: lambda item: (item, os.getpid()), [5, 6], workers=1))
    assert results == {0: (5, here), 1: (6, here)}
    assert dict(run_tasks(make_worker, [], workers=8)) == {}
