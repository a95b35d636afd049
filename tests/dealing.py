"""Which test files go to the same worker of xdist (``--dist loadfile``), and which go first.

Files that share a Ray cluster go to one worker, one after the other, so that there is one cluster.
They take long together, and come first: at the end of the run no worker is left alone with them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

ON_CLUSTER = ("test_ingest_scale.py", "test_embed_scale.py", "test_parallel.py")


def shares_cluster(path: str) -> bool:
    """Whether the tests of a file use the fixture ``cluster``."""
    return PurePosixPath(path).name in ON_CLUSTER


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first; all others in their order, which each worker must see alike."""
    items.sort(key=lambda item: not shares_cluster(item.path.as_posix()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal whole files, and those of the cluster as if they were one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "cluster" if shares_cluster(file) else file

    return Scheduler(config, log)
