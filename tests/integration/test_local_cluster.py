"""The Ray cluster that a command starts for itself is nobody else's."""

from ipaddress import IPv6Address, ip_address

import psutil
import pytest
import ray

from shards.parallel import ray_cluster


def listening() -> set[str]:
    """Addresses on which this process and all that it has started take TCP connections."""
    here = psutil.Process()
    return {
        connection.laddr.ip
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.is_loopback


def test_a_local_cluster_listens_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = listening()
    with ray_cluster(1):
        assert ray.get(ray.remote(ray.util.get_node_ip_address).remote()) == "127.0.0.1"
        addresses = listening() - before
        assert addresses
        assert all(map(is_loopback, addresses)), addresses
