"""The process group of a run: the rank of each process, and how the ranks connect.

Ranks are started by ``deepspeed``, ``torchrun``, ``srun`` or Ray. A process that none of these
started is the only rank.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from primus_scale.config import TrainConfig
from primus_scale.distributed.collectives import gather, message_device
from primus_scale.distributed.pulse import LONG_WORK


@dataclass
class Runtime:
    """Rank and device of a process: rank ``rank`` of ``world`` ranks, computing on ``device``.

    owns_group: this program made the process group, so ``stop_runtime`` ends it. end_group: the
    function that ends it; a library that derives its own groups from it (DeepSpeed) replaces it.
    """

    rank: int
    world: int
    device: torch.device
    owns_group: bool
    end_group: Callable[[], None] = dist.destroy_process_group


def start_runtime(config: TrainConfig) -> Runtime:
    """Join this process to the run; see ``join_group``.

    ValueError also where two ranks would use the same GPU.
    """
    runtime = join_group(config)
    if runtime.device.type == "cuda":
        check_own_device(torch.cuda.get_device_properties(runtime.device).uuid)
    return runtime


def join_group(config: TrainConfig) -> Runtime:
    """Join this process to the others, without a check of their devices.

    The rank comes from the environment (``deepspeed``, ``torchrun``, ``srun``, Ray's workers) or
    from a process group that exists already; otherwise the process runs alone. ValueError where
    this machine has no device as ``train.device`` says.
    """
    kind = _device_kind(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    local_rank = _read_launcher()
    device = torch.device(kind)
    if kind == "cuda":  # with Ray each worker sees its own devices only, so the modulo
        device = torch.device(kind, local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    owns_group = not dist.is_initialized()
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    if owns_group and "RANK" in os.environ:
        _init_group(backend, _longest_wait(config))
    elif owns_group:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return Runtime(dist.get_rank(), dist.get_world_size(), device, owns_group)


def _longest_wait(config: TrainConfig) -> timedelta:
    """Timeout of one collective: above the watchdog's, which names the rank that is stuck."""
    return timedelta(seconds=2 * LONG_WORK * config.stuck_after_s)


def _init_group(backend: str, timeout: timedelta) -> None:
    """Make the process group that the environment describes.

    By default torch's store listens on all addresses of the machine, and gloo on that of its host
    name. If the environment says that all ranks are on this machine, both listen on loopback only.
    """
    environment = os.environ
    address = environment["MASTER_ADDR"]
    agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # has a store already
    if agent or address not in ("127.0.0.1", "localhost"):
        dist.init_process_group(backend, timeout=timeout)
        return
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    port, listener = int(environment["MASTER_PORT"]), None
    if rank == 0:
        listener = socket.create_server(("127.0.0.1", port)).detach()
    store = dist.TCPStore("127.0.0.1", port, world, rank == 0, master_listen_fd=listener)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def stop_runtime(runtime: Runtime) -> None:
    """Leave the run."""
    if runtime.owns_group:
        runtime.end_group()


def is_launched() -> bool:
    """Whether a launcher has started this process as a rank, according to the environment."""
    # srun sets the second; in a batch script that runs this program without srun it is not set.
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def check_own_device(uuid: object) -> None:
    """Check that no two ranks use the same GPU; every rank calls it with its device's UUID.

    ValueError on all ranks where they do. NCCL would fail there with an error code only.
    """
    own = torch.tensor([list(str(uuid).encode())], dtype=torch.uint8, device=message_device())
    devices = gather(own)
    distinct = len(devices.unique(dim=0))
    if distinct < len(devices):
        raise ValueError(
            f"{len(devices)} ranks find {distinct} GPUs, and each rank needs one of its own; start "
            "as many ranks a machine as it has GPUs, or use train.device=cpu"
        )


def _device_kind(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device=cuda, but torch sees no CUDA device; use train.device=cpu")
    return wanted


def _read_launcher() -> int:
    """The local rank of this process. Sets torch's variables from those of srun."""
    environment = os.environ
    if is_launched() and "RANK" not in environment:
        environment["RANK"] = environment["SLURM_PROCID"]
        environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
        environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
        if "MASTER_ADDR" not in environment:
            environment["MASTER_ADDR"] = _first_address(environment["SLURM_STEP_NODELIST"])
        # Below the range of ports that the kernel assigns.
        environment.setdefault("MASTER_PORT", str(20000 + int(environment["SLURM_JOB_ID"]) % 12000))
    return int(environment.setdefault("LOCAL_RANK", "0"))  # DeepSpeed requires the variable


def _first_address(nodes: str) -> str:
    """The address of the first of ``nodes``; a node's name in SLURM need not be a host name."""
    first = _scontrol("show", "hostnames", nodes).split()[0]
    fields = _scontrol("--oneliner", "show", "node", first).split()
    return dict(field.partition("=")[::2] for field in fields)["NodeAddr"]


def _scontrol(*arguments: str) -> str:
    command = ("scontrol", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
