"""A connection to a Ray cluster: one that runs already, or a local one of our own."""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import ray_constants

from primus_scale.storage.foreign import reason
from shards.tasks.local import on_cluster

CONNECT_TIMEOUT_S = 10.0  # for a connection to the cluster
MOST_STARTS = 3  # of a local cluster
LATE = "timed out during startup"  # in Ray's words


@contextmanager
def ray_cluster(cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster of ``RAY_ADDRESS``, or a local cluster of our own.

    cpus: of the local cluster (None: the machine's cores); it listens on loopback and ends with
    the block. ConnectionError where nothing answers at ``RAY_ADDRESS``.
    """
    if on_cluster():
        _join_cluster(os.environ["RAY_ADDRESS"])
    else:
        # Otherwise Ray writes a token to the home folder, which later clusters would need.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        with _loopback(), _logging_kept():
            _start_local(cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(cpus: int | None) -> None:
    """Start a local cluster, again where it is not up in Ray's 30 s: on a busy machine it is late.

    Ray has no setting for that time (``Node.__init__``), and raises a plain Exception.
    """
    for start in itertools.count(1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.WARNING,
                logging_config=ray.LoggingConfig(log_level="ERROR"),
                _node_ip_address="127.0.0.1",
            )
            return
        except Exception as error:
            if LATE not in str(error) or start == MOST_STARTS:
                raise
            ray.shutdown()
            print("the local Ray cluster is late on this busy machine; starting it again")


def _join_cluster(address: str) -> None:
    """Connect, or raise ConnectionError: Ray would try for minutes, and then end the process."""
    advice = "start it (ray start), correct RAY_ADDRESS, or unset it to work on this machine alone"
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        ray.init(logging_level=logging.WARNING)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason(error)}); {advice}"
        ) from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray listen on 127.0.0.1.

    It uses the machine's own address instead, unless clusters are disabled. It reads this from the
    environment: in this process at import, in processes that it starts at their start.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Keep this process's logging as it is: Ray's settings are meant for its workers alone."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
