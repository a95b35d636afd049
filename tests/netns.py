"""Two network namespaces as two hosts for a test, joined by a switch whose cable can be pulled.

    with two_hosts() as (first, second):
        server = first.start("python", "-m", "http.server", log=tmp_path / "server.log")
        with second.cut_off():
            ...

Each host has its own loopback, ports and addresses, and shares the file system and the processes'
numbers with this machine, of whose own network nothing is touched. Names carry the number of this
process. At the end all processes in the namespaces are killed and the namespaces removed. Needs
root and iproute2 (skips; fails in CI).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests import fork_server
from tests.conftest import require
from tests.fork_server import Forked

NETWORK = "10.77.0"  # of namespaces of our own, so it meets no other
DEVICE = "eth0"


@dataclass(frozen=True)
class Host:
    """A namespace with an address, plugged into the port of its own name at the switch."""

    name: str
    address: str
    switch: str
    _started: list[subprocess.Popen[bytes] | Forked] = field(default_factory=list)

    def start(
        self, *command: str, log: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` on this host; what it says goes to the end of the file ``log``."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],  # becomes the command
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def fork(
        self, program: Path, *arguments: str, log: Path, environment: Mapping[str, str]
    ) -> Forked:
        """As ``start``, a Python program from the fork server."""
        with log.open("ab") as file:
            process = fork_server.start(
                Path(__file__).with_name("in_netns.py"),
                *(self.name, str(program), *arguments),
                env=environment,
                output=file,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """All processes on this host."""
        command = ["ip", "netns", "pids", self.name]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        processes = []
        for number in found.split():
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(int(number)))
        return processes

    def kill_all(self) -> None:
        """Kill whatever runs on this host."""
        while running := self.processes():
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for process in self._started:
            process.wait()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """No cable at this host's port of the switch while the block runs.

        The host keeps its address: as with a real cable, its device only loses its carrier.
        """
        _ip("-n", self.switch, "link", "set", self.name, "down")
        try:
            yield
        finally:
            _ip("-n", self.switch, "link", "set", self.name, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else."""
    require(os.geteuid() == 0 and shutil.which("ip"), "network namespaces need root and iproute2")
    switch = f"pn{os.getpid()}"
    first, second = (Host(f"{switch}-{end}", f"{NETWORK}.{end}", switch) for end in (1, 2))
    with _namespace(switch), _namespace(first.name), _namespace(second.name):
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in (first, second):
            _plug_in(host)
        try:
            yield first, second
        finally:
            for host in (first, second):
                host.kill_all()


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        _ip("netns", "delete", name)


def _plug_in(host: Host) -> None:
    pair = ("link", "add", host.name, "type", "veth", "peer", "name", DEVICE)
    _ip("-n", host.switch, *pair, "netns", host.name)
    _ip("-n", host.switch, "link", "set", host.name, "master", "bridge", "up")
    _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", DEVICE)
    _ip("-n", host.name, "link", "set", DEVICE, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
