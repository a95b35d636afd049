"""What Ray Train tells its workers about each other; the process group they make themselves.

    TorchTrainer(work, torch_config=OwnGroup(), ...)

By default Ray makes the group for them: its store listens on all of the machine's addresses, also
for a run on this machine alone. Here workers find in their environment what any launcher of torch
leaves there, and ``primus_scale.distributed.group.join_group`` does the rest.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import ray.train
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig


class OwnGroup(TorchConfig):
    """Workers that make their own process group."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Who tells them."""
        return _Introduction


class _Introduction(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Tell every worker its rank, and where rank 0 is."""
        address, port = worker_group.execute_single(0, _own_address)
        worker_group.execute(_introduce, address, port)


def _own_address() -> tuple[str, int]:
    """Where this worker's node can be reached, and a free port there."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


def _introduce(address: str, port: int) -> None:
    worker = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(worker.get_world_rank()),
        "WORLD_SIZE": str(worker.get_world_size()),
        "LOCAL_RANK": str(worker.get_local_rank()),
    }
