"""A real Ray cluster on this machine for a test, with token authentication, and jobs on it.

    with ray_head(cpus=2) as head, head.job("python", "-m", "launch.ray_train", ...) as job:
        assert job.wait() == "SUCCEEDED"

Every port is the system's choice, so that clusters of several tests get along. Whatever was started
is killed at the end of the block.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.tiny import ROOT, free_port, started, wait_until

BIN = Path(sys.executable).parent
OWN_PORTS = (
    "--dashboard-agent-listen-port=0",
    *("--min-worker-port=0", "--max-worker-port=0"),
)
# A node that is gone is noticed within two seconds instead of twenty.
QUICK_DEATHS = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    head: "Head"
    name: str

    def status(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return str(self.head.ask(f"api/jobs/{self.name}")["status"])

    def said(self) -> str:
        """Its log so far."""
        return str(self.head.ask(f"api/jobs/{self.name}/logs")["logs"])

    def stop(self) -> None:
        """As ``ray job stop``; returns when the job has ended."""
        assert self.head.ask(f"api/jobs/{self.name}/stop", method="POST")["stopped"]
        self.wait()

    def wait(self, timeout_s: float = 300.0) -> str:
        """Its status when it has ended."""
        end = time.monotonic() + timeout_s
        while (status := self.status()) in ("PENDING", "RUNNING"):
            assert time.monotonic() < end, f"{self.name} goes on"
            time.sleep(0.5)
        return status


@dataclass(frozen=True)
class Head:
    """A cluster: its environment, its folder, the addresses of its dashboard and of its GCS.

    nodes: process numbers of its nodes.
    """

    environment: dict[str, str]
    folder: Path
    dashboard: str
    gcs: str
    nodes: list[int] = field(default_factory=list)

    def ray(self, *arguments: str) -> str:
        """What the ``ray`` command prints; AssertionError where it fails."""
        done = subprocess.run(
            [str(BIN / "ray"), *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the dashboard answers: a command of ``ray`` imports for seconds to ask the same."""
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.dashboard}/{path}", headers=token, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    @contextmanager
    def job(self, *entrypoint: str, environment: dict[str, str] | None = None) -> Iterator[Job]:
        """This checkout, submitted as a job; its log is shown with a failing test."""
        job = Job(self, f"job-{secrets.token_hex(4)}")
        # Ray's helpers would look for a cluster on this machine, and might find another test's.
        variables = {"RAY_ADDRESS": self.gcs, **(environment or {})}
        options = ("--working-dir", ".", "--runtime-env-json", json.dumps({"env_vars": variables}))
        address = ("--address", self.dashboard, "--submission-id", job.name, "--no-wait")
        self.ray("job", "submit", *address, *options, "--", *entrypoint)
        try:
            yield job
        finally:
            print(job.said())

    @contextmanager
    def node(self, cpus: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A node, by default a further one; at the end of the block all of it is killed at once."""
        command = (
            *("ray", "start", "--block", "--disable-usage-stats"),
            *(options or (f"--address={self.gcs}",)),
            *(f"--num-cpus={cpus}", "--num-gpus=0", *OWN_PORTS),
        )
        log = self.folder / f"node-{secrets.token_hex(4)}.log"
        with (
            log.open("wb") as file,
            subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            ) as process,
        ):
            self.nodes.append(process.pid)
            try:
                yield process
            finally:
                tree = _tree(process.pid)
                for each in tree:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
                psutil.wait_procs(tree[1:])

    def processes(self, *titles: str) -> list[psutil.Process]:
        """Processes of this cluster whose title begins with one of ``titles``, oldest first."""
        found = [each for pid in self.nodes for each in _tree(pid)]
        found = [each for each in found if _title(each).startswith(titles)]
        return sorted(found, key=lambda each: each.create_time())


@contextmanager
def ray_head(cpus: int) -> Iterator[Head]:
    """A cluster of one node with ``cpus`` cores, whose dashboard listens on loopback."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    port, dashboard_port = free_port(), free_port()
    with scratch_folder() as folder:
        dashboard, gcs = f"http://127.0.0.1:{dashboard_port}", f"127.0.0.1:{port}"
        head = Head(environment, Path(folder), dashboard, gcs)
        options = (
            *("--head", f"--port={port}", f"--temp-dir={folder}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            f"--ray-client-server-port={free_port()}",
            f"--system-config={json.dumps(QUICK_DEATHS)}",
        )
        with head.node(cpus, *options):
            wait_until(lambda: _takes_jobs(head))
            yield head


@contextmanager
def scratch_folder() -> Iterator[str]:
    """For Ray's records. Not in pytest's folder: the names of Ray's sockets would be too long."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def plain_cluster(cpus: int) -> Iterator[dict[str, str]]:
    """A cluster without dashboard and token; the variables under which programs use it."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    program = (sys.executable, str(BIN / "ray"))
    options = ("--include-dashboard=false", "--disable-usage-stats", "--block")
    here = ("--node-ip-address=127.0.0.1", f"--port={port}")
    variables = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}  # tests have workers, too
    health = (*program, "health-check", "--address", address)

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            # An interpreter of its own, so not before somebody listens.
            return subprocess.run(health, capture_output=True, check=False).returncode == 0
        return False

    with pytest.MonkeyPatch.context() as patch, scratch_folder() as folder:
        for name, value in variables.items():
            patch.setenv(name, value)
        own = (*here, f"--temp-dir={folder}", f"--ray-client-server-port={free_port()}")
        command = ("start", "--head", f"--num-cpus={cpus}", *own, *OWN_PORTS, *options)
        with started(*program, *command):
            wait_until(answers)
            yield {**variables, "RAY_ADDRESS": address}


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all that it has started, and those, and so on."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _takes_jobs(head: Head) -> bool:
    try:
        head.ask("api/jobs/")
    except (OSError, ValueError):  # nobody listens yet, or answers with an error
        return False
    return True
