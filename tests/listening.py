"""Where processes take TCP connections, for tests.

assert all(each.on_loopback for each in listening(os.getpid()))
"""

from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

import psutil


class Listener(NamedTuple):
    """A program, and an address on which it listens."""

    program: str
    address: str

    @property
    def on_loopback(self) -> bool:
        """Whether no other machine reaches it."""
        parsed = ip_address(self.address)
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return parsed.is_loopback


def listening(pid: int) -> set[Listener]:
    """Where a process and all that it has started listen."""
    process = psutil.Process(pid)
    return {
        Listener(each.cmdline()[0], connection.laddr.ip)
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
