"""Shared by all tests: what to do where a program, file or device is absent."""

import os

import pytest
import torch

from tests import fork_server

pytest_plugins = ["tests.times"]


def require(condition: object, reason: str) -> None:
    """Skip the test with ``reason`` where ``condition`` is false; in CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (required in CI)", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where there is no CUDA device, in CI too."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_sessionfinish() -> None:
    """Nothing that tests have started outlives them."""
    fork_server.close()
