"""Shared by all tests: what may be absent, and what must not run at the same time."""

import functools
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many tests as cores run at a time

import pytest
import torch

from tests import fork_server

pytest_plugins = ["tests.times"]
one_cluster_at_a_time = pytest.mark.one_cluster_at_a_time  # tests that start a Ray cluster


def require(condition: object, reason: str) -> None:
    """Skip the test with ``reason`` where ``condition`` is false; in CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (required in CI)", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with Ray clusters first; skip where there is no CUDA device, in CI too."""
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    items.sort(key=lambda item: not _starts_clusters(str(item.path)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal tests to the workers of pytest-xdist by their file, so that its fixtures are made once.

    A machine takes one Ray cluster at a time, for ``ray start`` notes its own as that of the
    machine: all files that have tests marked ``one_cluster_at_a_time`` go to one worker. They take
    longest. (The groups of pytest-xdist 3.8 do nothing under pytest 9.2.)
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "ray" if _starts_clusters(str(config.rootpath / file)) else file

    return ByFile(config, log)


@functools.cache
def _starts_clusters(file: str) -> bool:
    return one_cluster_at_a_time.name in Path(file).read_text(encoding="utf-8")


def pytest_sessionfinish() -> None:
    """Nothing that tests have started outlives them."""
    fork_server.close()
