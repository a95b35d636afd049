"""Shared by all tests: what may be absent, and what must not run at the same time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many tests as cores run at a time

import pytest
import torch

from tests import fork_server

pytest_plugins = ["tests.times"]
RAY = "ray"  # the group of tests that start a Ray cluster
one_cluster_at_a_time = pytest.mark.xdist_group(RAY)


def require(condition: object, reason: str) -> None:
    """Skip the test with ``reason`` where ``condition`` is false; in CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (required in CI)", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make groups for pytest-xdist, and skip where there is no CUDA device, in CI too.

    A file is a group, so that its fixtures are made once. A machine takes one Ray cluster at a
    time, for ``ray start`` notes its own as that of the machine: tests with one are marked as
    another group, which takes longest and is the first.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    items.sort(key=lambda item: _group(item) != RAY)


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else ""


def pytest_sessionfinish() -> None:
    """Nothing that tests have started outlives them."""
    fork_server.close()
