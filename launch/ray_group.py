"""The process group of Ray Train's workers, which they make themselves.

    DataParallelTrainer(work, backend_config=OwnGroup(), ...)

By default Ray makes the group: its store listens on all addresses of the machine, also for a run
on this machine alone. Here each worker gets the environment variables that a launcher of torch
sets, and ``primus_scale.distributed.group.join_group`` does the rest.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import ray.train
from ray.train.backend import Backend, BackendConfig


class OwnGroup(BackendConfig):
    """Workers that make their own process group.

    It is no ``TorchConfig``, since the driver and the controller would import torch for it, which
    takes them two seconds each before a worker can start.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that sets their environment."""
        return _RankEnvironment


class _RankEnvironment(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Set rank, world size and the address of rank 0 in every worker's environment."""
        address, port = worker_group.execute_single(0, _own_address)
        worker_group.execute(_set_rank_environment, address, port)


def _own_address() -> tuple[str, int]:
    """Where this worker's node can be reached, and a free port there."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


def _set_rank_environment(address: str, port: int) -> None:
    worker = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(worker.get_world_rank()),
        "WORLD_SIZE": str(worker.get_world_size()),
        "LOCAL_RANK": str(worker.get_local_rank()),
    }
