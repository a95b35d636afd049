"""Shared by all tests: what may be absent, and how long they took."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many tests as cores run at a time

import pytest

from tests import fork_server

pytest_plugins = ["tests.dealing", "tests.times"]


def require(condition: object, reason: str) -> None:
    """Skip the test with ``reason`` where ``condition`` is false; in CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (required in CI)", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no CUDA device, in CI too."""
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if not on_gpu:
        return
    import torch  # not for all: it takes a second

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_sessionfinish() -> None:
    """Nothing that tests have started outlives them."""
    fork_server.close()
