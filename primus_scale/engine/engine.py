"""Training with DeepSpeed: build the engine, forward, backward, step, export of the weights.

DeepSpeed partitions optimiser state, gradients and weights over ranks (ZeRO, arXiv 1910.02054).
Only this file and ``zero_state.py`` use it.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from typing import Any

import torch
from torch import nn

from primus_scale.config import OptimizerConfig, TrainConfig
from primus_scale.counted import counted
from primus_scale.distributed.group import Runtime
from primus_scale.distributed.pulse import pulse
from primus_scale.encoders import Embeddings
from primus_scale.engine.optimizer import build_optimizer
from primus_scale.objective.model import ModelOutput, PrimusModel

MAX_BUCKET = 50_000_000  # gradients reduced in one message, in elements


def check_batch(config: TrainConfig, world: int, session_windows: int | None = None) -> str:
    """Check the batch arithmetic of a run on ``world`` ranks; returns a line that describes it.

    session_windows: of the data, of which the batch is a multiple as well. ValueError, with the
    nearest batch that fits, where the global batch does not divide by the ranks and their encoder
    passes.
    """
    parts = world * config.accumulation
    if config.batch % parts:
        step = math.lcm(parts, session_windows or 1)
        below = config.batch - config.batch % step
        near = f"{below} or {below + step}" if below else str(step)
        raise ValueError(
            f"train.batch={config.batch} does not divide by {counted(world, 'rank')} x "
            f"train.accumulation={config.accumulation}; use train.batch={near}"
        )
    return (
        f"global batch {config.batch} = {counted(world, 'rank')} x "
        f"{counted(config.accumulation, 'encoder pass', 'encoder passes')} x "
        f"{counted(config.batch // parts, 'window')}, {config.batch - 1} negatives a window, "
        f"{config.precision}, ZeRO stage {config.zero_stage}"
    )


class Engine:
    """A model, its optimiser and its gradients under DeepSpeed.

    It computes on ``device``, in float32 or in bfloat16 autocast (``train.precision``, already
    chosen where the setting is auto). Weights, temperatures and
    optimiser state are float32 in both cases: in bfloat16 a learned temperature could change only
    in steps of 1 %.
    """

    def __init__(
        self, model: PrimusModel, train: TrainConfig, optimizer: OptimizerConfig, runtime: Runtime
    ) -> None:
        assert train.precision != "auto", "choose_precision first"
        deepspeed = _start_deepspeed(runtime)
        self.device = runtime.device
        self.passes = train.accumulation
        self._stage = train.zero_stage
        self.deepspeed, *_ = deepspeed.initialize(
            model=model.to(runtime.device),
            optimizer=build_optimizer(model, optimizer),
            config=_deepspeed_config(train, optimizer.clip, runtime.world, model),
        )

    @property
    def model(self) -> PrimusModel:
        """The model; under ZeRO stage 3 its parameters are partitioned over ranks."""
        return self.deepspeed.module

    def __call__(self, imu: torch.Tensor) -> ModelOutput:
        """Embed imu ``(B, C, T)``. Every rank must call it at the same time."""
        pulse.at("forward pass")
        return self.deepspeed(imu)

    def embed(self, imu: torch.Tensor) -> Embeddings:
        """Embeddings of imu ``(B, C, T)`` without gradient, on every rank at the same time.

        imu may be on the CPU; the embeddings are on ``device``.
        """
        with torch.no_grad():
            return self(imu.to(self.device)).embeddings

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` (0-d) to the sum; call it ``passes`` times, then ``step``.

        The last pass averages the sum over ranks.
        """
        pulse.at("backward pass")
        self.deepspeed.backward(loss, scale_wrt_gas=False)
        if not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()  # only counts the pass

    def step(self, lr: float) -> float:
        """Update the weights at rate ``lr``; returns the norm of the global gradient, unclipped.

        FloatingPointError where the norm is not finite: the weights are not finite either then.
        """
        pulse.at("optimiser step")
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = lr
        # DeepSpeed gives the norm only where it partitions the optimiser (ZeRO stage 1 to 3).
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
        """The encoder's whole weights on the CPU, by name; every rank calls it at the same time."""
        import deepspeed

        encoder = self.model.encoder
        partitioned = list(encoder.parameters()) if self._stage == 3 else []
        with deepspeed.zero.GatheredParameters(partitioned):
            return {name: value.cpu().clone() for name, value in encoder.state_dict().items()}

    def close(self) -> None:
        """Free DeepSpeed's hooks and buffers."""
        self.deepspeed.destroy()

    def _whole_gradient_norm(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))


def _deepspeed_config(
    train: TrainConfig, clip: float, world: int, model: nn.Module
) -> dict[str, Any]:
    # DeepSpeed allocates the whole bucket, also for a small model.
    bucket = min(MAX_BUCKET, sum(p.numel() for p in model.parameters()))
    return {
        "train_micro_batch_size_per_gpu": train.batch // (world * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": clip,
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
        "zero_optimization": {"stage": train.zero_stage, "reduce_bucket_size": bucket},
        "steps_per_print": None,
    }


def _start_deepspeed(runtime: Runtime) -> Any:
    """DeepSpeed, set to the kind of device and the process group; it logs errors only."""
    os.environ["DS_ACCELERATOR"] = runtime.device.type
    # DeepSpeed and torch's modules use deprecated names, for which torch 2.6 has no others.
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated", DeprecationWarning)
    import deepspeed.ops
    import deepspeed.utils

    # None of its compiled ops. It would try the compiler for each of them, and on CPU compile one
    # for shared memory at the first use, which takes a minute.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.setLevel(logging.ERROR)
    # It uses the existing process group; the discovery of MPI would need mpi4py.
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    runtime.end_group = deepspeed.comm.destroy_process_group
    return deepspeed
