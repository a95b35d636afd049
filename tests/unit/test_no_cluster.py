"""A RAY_ADDRESS that nobody answers is an error within seconds; an empty one is none."""

import socket
import time
from contextlib import nullcontext

import pytest

from shards.tasks.workers import on_cluster, ray_cluster, run_tasks, runs_in_process


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
    monkeypatch.setattr("shards.tasks.workers.ray.init", start)
    outcome = pytest.raises(Exception, match="timed out") if late == 9 else nullcontext()
    with outcome, ray_cluster():
        pass
    assert len(begun) == starts
