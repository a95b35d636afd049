"""The process group of a run: which rank a process is, and how it finds the others.

Ranks are started by ``deepspeed``, ``torchrun``, ``srun`` or Ray; a process that nobody started as
a rank runs alone.
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
    """Where a process stands in a run: rank ``rank`` of ``world``, computing on ``device``.

    owns_group: the process group was made here and ends with ``stop_runtime``. end_group: how it
    ends; a library that has made groups of its own of it puts its own way here.
    """

    rank: int
    world: int
    device: torch.device
    owns_group: bool
    end_group: Callable[[], None] = dist.destroy_process_group


def start_runtime(config: TrainConfig) -> Runtime:
    """Join this process to the run, however it was started; see ``join_group``.

    ValueError where ranks would share a GPU as well.
    """
    runtime = join_group(config)
    if runtime.device.type == "cuda":
        check_own_device(torch.cuda.get_device_properties(runtime.device).uuid)
    return runtime


def join_group(config: TrainConfig) -> Runtime:
    """Join this process to the others, without a look at what devices they have.

    Takes its rank from the environment (``deepspeed``, ``torchrun``, ``srun``, Ray's workers), from
    a process group that is already up, or runs alone. ValueError where ``train.device`` asks
    for a device that this machine lacks.
    """
    kind = _device_kind(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    local_rank = _read_launcher()
    device = torch.device(kind)
    if kind == "cuda":  # Ray shows each worker its own devices only, whatever its local rank
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
    """For one collective: the watchdog, which names the stuck rank, must come before torch."""
    return timedelta(seconds=2 * LONG_WORK * config.stuck_after_s)


def _init_group(backend: str, timeout: timedelta) -> None:
    """Make the process group that the environment describes.

    Torch's store takes connections on all of the machine's addresses, and gloo on that of its name.
    Both stay on loopback where all ranks are on this machine by their own word.
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
    """Whether a launcher has started this process as a rank, by what it left in the environment."""
    # Set by srun, but not in a batch script that runs us directly.
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def check_own_device(uuid: object) -> None:
    """Refuse to compute where another rank does; every rank calls it with its device's UUID.

    ValueError on all ranks, which NCCL would fail with nothing but a code.
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
    """The rank of this process on its machine; srun's names are mapped to torch's on the way."""
    environment = os.environ
    if is_launched() and "RANK" not in environment:
        environment["RANK"] = environment["SLURM_PROCID"]
        environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
        environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
        if "MASTER_ADDR" not in environment:
            environment["MASTER_ADDR"] = _first_address(environment["SLURM_STEP_NODELIST"])
        # Below the ports that the kernel gives away.
        environment.setdefault("MASTER_PORT", str(20000 + int(environment["SLURM_JOB_ID"]) % 12000))
    return int(environment.setdefault("LOCAL_RANK", "0"))  # DeepSpeed insists on the variable


def _first_address(nodes: str) -> str:
    """Where SLURM reaches the first of ``nodes``, whose name need not be that of a host."""
    first = _scontrol("show", "hostnames", nodes).split()[0]
    fields = _scontrol("--oneliner", "show", "node", first).split()
    return dict(field.partition("=")[::2] for field in fields)["NodeAddr"]


def _scontrol(*arguments: str) -> str:
    command = ("scontrol", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
