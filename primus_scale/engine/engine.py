"""DeepSpeed behind a few calls: start a rank, build the engine, backward, step, export.

DeepSpeed brings the cutting of optimiser state, gradients and weights over ranks (ZeRO, arXiv
1910.02054). Everything that must be set just so for it stands in this file and in
``zero_state.py``; no other part of the program knows of it.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from primus_scale.config import Config, OptimizerConfig, TrainConfig
from primus_scale.distributed.collectives import gather, message_device
from primus_scale.distributed.pulse import LONG_WORK, pulse
from primus_scale.encoders import Embeddings
from primus_scale.objective.loss import ModelOutput, PrimusModel

MAX_BUCKET = 50_000_000  # gradients reduced in one message, in elements


@dataclass(frozen=True)
class Runtime:
    """Where a process stands in a run: rank ``rank`` of ``world``, computing on ``device``.

    owns_group: the process group was made here and ends with ``stop_runtime``.
    """

    rank: int
    world: int
    device: torch.device
    owns_group: bool


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
    deepspeed = _import_deepspeed(kind)
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
    # Adopts the group; the discovery of MPI would need mpi4py.
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
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
        import deepspeed.comm

        deepspeed.comm.destroy_process_group()


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


def check_batch(config: TrainConfig, world: int) -> str:
    """Check the batch arithmetic of a run on ``world`` ranks, and tell it in one line.

    ValueError, with the nearest batch that fits, where the global batch does not divide by the
    ranks and their encoder passes.
    """
    parts = world * config.accumulation
    if config.batch % parts:
        below = config.batch - config.batch % parts
        near = f"{below} or {below + parts}" if below else str(parts)
        raise ValueError(
            f"train.batch={config.batch} does not divide by {world} ranks x train.accumulation="
            f"{config.accumulation}; use train.batch={near}"
        )
    return (
        f"global batch {config.batch} = {world} ranks x {config.accumulation} encoder passes x "
        f"{config.batch // parts} windows, {config.batch - 1} negatives a window, "
        f"{config.precision}, ZeRO stage {config.zero_stage}"
    )


def learning_rate(step: int, config: OptimizerConfig, steps: int) -> float:
    """Rate of the update after ``step`` steps of ``steps``: linear warm-up, then as configured.

    A pure function of the step, so that a resumed run needs no state for it. Cosine ends at 0
    (arXiv 1608.03983, without restarts).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class Engine:
    """A model, its optimiser and its gradients under DeepSpeed.

    Computes on ``device``, in float32 or in bfloat16 autocast. Weights, temperatures and
    optimiser state stay in float32 either way: in bfloat16 a learned temperature would move in
    steps of 1 %.
    """

    def __init__(self, model: PrimusModel, config: Config, runtime: Runtime) -> None:
        import deepspeed

        train = config.train
        self.device = runtime.device
        self.passes = train.accumulation
        self._stage = train.zero_stage
        optimizer = build_optimizer(model.to(runtime.device), config.optimizer)
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=_deepspeed_config(config, runtime.world, model),
        )

    @property
    def model(self) -> PrimusModel:
        """The model itself; under ZeRO stage 3 its parameters are in pieces."""
        return self.deepspeed.module

    def __call__(self, imu: torch.Tensor) -> ModelOutput:
        """Embed imu ``(B, C, T)``. Every rank must call it at the same time."""
        pulse.at("forward pass")
        return self.deepspeed(imu)

    def embed(self, imu: torch.Tensor) -> Embeddings:
        """Embeddings of imu ``(B, C, T)`` without gradient, on every rank at the same time.

        imu may lie on the CPU; the embeddings lie on ``device``.
        """
        with torch.no_grad():
            return self(imu.to(self.device)).embeddings

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` (0-d); call it ``passes`` times, then ``step``.

        The last pass averages the sum over the ranks.
        """
        pulse.at("backward pass")
        self.deepspeed.backward(loss, scale_wrt_gas=False)
        if not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()  # only counts the pass

    def step(self, lr: float) -> float:
        """Update the weights at rate ``lr``; returns the norm of the global gradient, unclipped.

        FloatingPointError where the norm is not finite: the weights are lost with it.
        """
        pulse.at("optimiser step")
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = lr
        # DeepSpeed tells the norm only where it cuts the optimiser.
        norm = self._whole_gradient_norm() if self._stage == 0 else None
        self.deepspeed.step()
        if norm is None:
            norm = float(self.deepspeed.get_global_grad_norm())
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient norm is {norm} though the loss is finite; start again from the last "
                "checkpoint with a lower optimizer.lr, or with train.precision=fp32"
            )
        return norm

    def encoder_state(self) -> dict[str, torch.Tensor]:
        """The encoder's whole weights on the CPU, by name. Every rank must call it together."""
        import deepspeed

        encoder = self.model.encoder
        cut = list(encoder.parameters()) if self._stage == 3 else []
        with deepspeed.zero.GatheredParameters(cut):
            return {name: value.cpu().clone() for name, value in encoder.state_dict().items()}

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers."""
        self.deepspeed.destroy()

    def _whole_gradient_norm(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Torch's fused Adam or AdamW; biases, norms and temperatures are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, fused=True)


def _deepspeed_config(config: Config, world: int, model: nn.Module) -> dict[str, Any]:
    train = config.train
    # DeepSpeed allocates the bucket whole, however small the model is.
    bucket = min(MAX_BUCKET, sum(p.numel() for p in model.parameters()))
    return {
        "train_micro_batch_size_per_gpu": train.batch // (world * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": config.optimizer.clip,
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
        "zero_optimization": {"stage": train.zero_stage, "reduce_bucket_size": bucket},
        "steps_per_print": None,
    }


def _device_kind(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device=cuda, but torch sees no CUDA device; use train.device=cpu")
    return wanted


def _import_deepspeed(kind: str) -> Any:
    """DeepSpeed, bound to a kind of device, and silent short of errors."""
    os.environ["DS_ACCELERATOR"] = kind
    # Old names that DeepSpeed and torch's own modules still use, and torch 2.6 has no others for.
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated", DeprecationWarning)
    import deepspeed.ops
    import deepspeed.utils

    # On CPU it would compile an op for shared memory at the first use: a minute, and a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.ERROR)
    return deepspeed


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
