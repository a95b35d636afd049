"""The last check: the run itself for one step and its checkpoint, in a scratch folder."""

from __future__ import annotations

import resource
import shutil
import time

import torch

from launch.checks.base import ALL, FAIL, OK, Check, CheckFinding, Context, format_bytes
from primus_scale.checkpoint.copies import CHECKPOINTS
from primus_scale.train.trainer import pretrain


def measure_step(context: Context) -> dict[str, float]:
    """Forward, backward, update, validation and checkpoint of one step, by the real loop."""
    device = context.runtime.device
    output = context.scratch / "run"
    train = context.config.train
    storage = context.shared.url if train.storage else None  # not where the run's own copy is
    train = train.model_copy(update={"steps": 1, "storage": storage})
    one_step = context.config.model_copy(update={"output": str(output), "train": train})
    start = time.perf_counter()
    with context.watch.paused():
        pretrain(one_step, placement_group=context.placement_group, notes=False)  # of one step
        seconds = time.perf_counter() - start
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    files = [path for path in (output / CHECKPOINTS).rglob("*") if path.is_file()]
    return {
        "seconds": seconds,
        "peak": peak,
        "checkpoint": sum(path.stat().st_size for path in files),
        "free": shutil.disk_usage(context.scratch).free,
    }


def judge_step(context: Context, ranks: list[dict[str, float]]) -> list[CheckFinding]:
    """The checkpoints that a run keeps, and the one being written, must fit side by side."""
    worst = {key: max(each[key] for each in ranks) for key in ranks[0]}
    keep = context.config.train.keep_checkpoints
    detail = (
        f"one step and its checkpoint ({format_bytes(worst['checkpoint'])}) in "
        f"{worst['seconds']:.1f} s, at most {format_bytes(worst['peak'])} a rank"
    )
    free = min(each["free"] for each in ranks)
    if (keep + 1) * worst["checkpoint"] > free:
        detail += (
            f"; the output has {format_bytes(free)} left, too little for {keep + 1} of them: free "
            "some, or lower train.keep_checkpoints"
        )
        return [CheckFinding("step", ALL, FAIL, detail)]
    return [CheckFinding("step", ALL, OK, detail)]


NEEDS = (
    "batch",
    "versions",  # ranks of different code may wait for each other
    "devices",
    "index",
    "shards",
    "output",
    "shared",
    "memory",
    "collectives",
)
CHECKS = (Check("step", measure_step, judge_step, needs=NEEDS, together=True),)
