"""No rank outlives the test that started it."""

from collections.abc import Iterator

import pytest

from tests.integration.tiny import kill_ranks


@pytest.fixture(autouse=True)
def _ranks_end_with_the_test() -> Iterator[None]:
    yield
    kill_ranks()
