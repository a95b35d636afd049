"""No rank outlives its test; Ray clusters lie apart; one serves all tests that only use one."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.dealing import shares_cluster
from tests.integration.ray_head import plain_cluster, scratch_folder
from tests.integration.tiny import kill_ranks

_running = ExitStack()  # the cluster that tests share, while there is one
_variables: dict[str, str] = {}  # its own


@pytest.fixture(autouse=True)
def _ranks_end_with_the_test() -> Iterator[None]:
    yield
    kill_ranks()


@pytest.fixture(scope="session", autouse=True)
def _ray_apart() -> Iterator[None]:
    """Ray meets no cluster of other tests on this machine, and its workers are no slower than they.

    It notes its last cluster in a file, and by default gives all other processes priority.
    """
    with scratch_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of a cluster of two cores that was there before the test."""
    assert shares_cluster(request.path.as_posix()), "name this file in tests/dealing.py"
    if not _variables:
        _variables.update(_running.enter_context(plain_cluster(cpus=2)))
    return dict(_variables)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the cluster after the last file that shares it: idle, it takes 4 % of a core."""
    if nextitem is None or not shares_cluster(nextitem.path.as_posix()):
        _variables.clear()
        _running.close()


@pytest.fixture(scope="module")
def on_cluster(cluster: dict[str, str]) -> Iterator[None]:
    """What the tests of a module start on Ray, runs there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.items():
            patch.setenv(name, value)
        yield
