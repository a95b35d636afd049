"""No rank outlives the test that started it; one Ray cluster serves all tests that only use one."""

from collections.abc import Iterator

import pytest

from tests.integration.ray_head import plain_cluster
from tests.integration.tiny import kill_ranks


@pytest.fixture(autouse=True)
def _ranks_end_with_the_test() -> Iterator[None]:
    yield
    kill_ranks()


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The variables of a cluster of two cores that was there before the test."""
    with plain_cluster(cpus=2) as variables:
        yield variables


@pytest.fixture(scope="module")
def on_cluster(cluster: dict[str, str]) -> Iterator[None]:
    """What the tests of a module start on Ray, runs there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.items():
            patch.setenv(name, value)
        yield
