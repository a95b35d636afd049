"""A RAY_ADDRESS that nobody answers is an error within seconds; an empty one is none."""

import socket
import time
from contextlib import nullcontext

import pytest

from shards.tasks.local import Failed, on_cluster, runs_in_process
from shards.tasks.ray_cluster import ray_cluster
from shards.tasks.workers import run_tasks
from tests.square_worker import make_worker


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:{}",
        "ray://127.0.0.1:{}",
        "no.such.host.invalid:{}",
        "nonsense",
        "127.0.0.1:99999",
    ],
)
def test_a_cluster_that_does_not_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, address: str
) -> None:
    address = address.format(closed_port)
    monkeypatch.setenv("RAY_ADDRESS", address)
    begun = time.monotonic()
    with (
        pytest.raises(ConnectionError, match=f"no Ray cluster answers at RAY_ADDRESS={address} "),
        ray_cluster(),
    ):
        pass
    with pytest.raises(ConnectionError, match="unset it to work on this machine alone"):
        list(run_tasks(lambda: abs, [1], workers=1))
    assert time.monotonic() - begun < 60


def test_an_empty_variable_names_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert not on_cluster()
    assert runs_in_process(1)
    assert list(run_tasks(lambda: abs, [-1], workers=1)) == [(0, 1)]


@pytest.mark.parametrize(("late", "starts"), [(1, 2), (2, 3), (9, 3)])
def test_a_local_cluster_that_is_late_is_started_again(
    monkeypatch: pytest.MonkeyPatch, late: int, starts: int
) -> None:
    """Ray's own 30 s run out where the machine is busy; that moment cannot be made at will."""
    begun = []

    def start(**_settings: object) -> None:
        begun.append(True)
        if len(begun) <= late:
            raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("shards.tasks.ray_cluster.ray.init", start)
    outcome = pytest.raises(Exception, match="timed out") if late == 9 else nullcontext()
    with outcome, ray_cluster():
        pass
    assert len(begun) == starts


def squares_of(items: list[int], workers: int = 2) -> dict[int, object]:
    return dict(run_tasks(make_worker, items, workers=workers, small=True))


def test_small_work_is_done_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert squares_of([2, 3, 4], workers=8) == {0: 4, 1: 9, 2: 16}
    with pytest.raises(ValueError, match=r"^seven is not to be squared; leave it out$"):
        squares_of([1, 7, 2])


def test_a_fork_that_dies_twice_on_an_item_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    failed = Failed("its process died 2 times (with exit code 1)")
    assert squares_of([2, 13, 3]) == {0: 4, 1: failed, 2: 9}
