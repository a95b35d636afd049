"""The Ray cluster that a command starts for itself is nobody else's."""

import os

import pytest
import ray

from shards.tasks.ray_cluster import ray_cluster
from tests.listening import listening


def test_a_local_cluster_listens_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = listening(os.getpid())
    with ray_cluster(1):
        assert ray.get(ray.remote(ray.util.get_node_ip_address).remote()) == "127.0.0.1"
        found = listening(os.getpid()) - before
        assert found
        assert all(each.on_loopback for each in found), found
