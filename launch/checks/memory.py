"""Check of memory: what the configuration will need, part by part, against the free memory.

Weights, gradients and Adam's states are counted as in the ZeRO paper (arXiv 1910.02054, section 3),
in float32, with DeepSpeed's float32 copy from stage 1 on. What autograd keeps grows with the number
of windows, and is measured on a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from launch.checks.base import FAIL, OK, WARN, Check, CheckFinding, Context, format_bytes
from primus_scale.config import Config, ObjectiveConfig, TrainConfig
from primus_scale.counted import counted
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders import ImuEncoder
from primus_scale.engine.engine import MAX_BUCKET
from primus_scale.objective.neighbours import support_spec
from primus_scale.objective.pairs import memory_of
from primus_scale.objective.terms import is_regression, weighted_terms, with_heads
from primus_scale.teachers import build_teachers, spaces_of
from primus_scale.train.run import fresh_encoder

FLOAT32 = 4
SAMPLE_ROWS = 8  # windows on which memory is measured
TIGHT = 0.9  # share of the memory; above it the check warns


@dataclass
class Need:
    """Bytes that one rank will need, by purpose: on its device, and in the node's memory."""

    device: dict[str, int] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)


def estimate(config: Config, data: ShardSet, held_out: ShardSet | None, world: int) -> Need:
    """What each of ``world`` ranks will need.

    data: the training shards. held_out: the validation shards, if any. Live teachers' own weights
    are not counted.
    """
    spaces = dict(data.teachers)
    if config.teachers.mode == "live":
        spaces = spaces_of(build_teachers(config.teachers, data.index.window_format, "cpu"))
    encoder = fresh_encoder(config, data, with_heads(config.objective, spaces))
    rows = config.train.batch // world
    views = 2 * rows // config.train.accumulation
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    need = Need(device=_training(config.train, parameters, world))
    need.device["activations"] = _activations(config.train, encoder, views)
    need.device["loss"] = _loss(config.objective, rows, world, encoder.spec.dims)
    spec = support_spec(config.objective, config.support, encoder.spec.dims)
    if spec is not None and config.support.home == "in_process":
        need.device["support set"] = spec.memory

    embeddings = sum(space.dim for space in spaces.values())
    window = FLOAT32 * (data.index.window_samples * len(data.index.channels) + embeddings)
    record = max(shard.size // len(shard.records) for i in data.indexes for shard in i.shards)
    need.host["batches ahead"] = (config.data.prefetch_batches + 2) * rows * window
    need.host["records read"] = 2 * config.data.shuffle_blocks * record
    if held_out is not None:
        size = sum(s.size for i in held_out.indexes for s in i.shards)
        windows = sum(i.windows for i in held_out.indexes)
        loaded = min(config.data.validation_windows, windows)
        need.host["validation"] = size * loaded // windows
    need.host["exported encoder"] = 2 * FLOAT32 * parameters  # and the weights that go into it
    return need


def _training(train: TrainConfig, parameters: int, world: int) -> dict[str, int]:
    """What DeepSpeed holds of the model."""
    stage, whole = train.zero_stage, FLOAT32 * parameters
    states = 2 * whole if stage == 0 else 3 * whole // world
    return {
        "weights": whole // (world if stage == 3 else 1),
        "gradients": whole // (world if stage >= 2 else 1),
        "optimiser": states,
        "bucket": FLOAT32 * min(MAX_BUCKET, parameters) if stage else 0,
    }


def _activations(train: TrainConfig, encoder: ImuEncoder, rows: int) -> int:
    """What autograd keeps of the encoder's pass over ``rows`` windows (both views)."""

    def kept(count: int) -> int:
        imu = torch.zeros(count, encoder.spec.channels, encoder.spec.samples)

        def run() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=train.precision == "bf16"):
                return encoder(imu).ss

        return saved_bytes(run, without=list(encoder.parameters()))

    few, twice = kept(SAMPLE_ROWS), kept(2 * SAMPLE_ROWS)
    constant = 2 * few - twice  # for any number of rows: the weights in bfloat16
    return constant + (twice - few) * rows // SAMPLE_ROWS


def _loss(objective: ObjectiveConfig, rows: int, world: int, dims: Mapping[str, int]) -> int:
    """All terms' keys of the global batch, their gradients, and the logits held at a time."""
    neighbours = objective.neighbours
    each = neighbours.k if neighbours.combine == "each" else 1
    terms = [t for t in weighted_terms(objective) if not is_regression(t, objective)]
    sums = [each if term.kind == "neighbour" else 1 for term in terms]
    widths = [count * dims.get(t.modality, 0) for count, t in zip(sums, terms, strict=True)]
    return 2 * FLOAT32 * rows * world * sum(widths) + memory_of(sum(sums), rows, rows * world)


def saved_bytes(run: Callable[[], Any], without: list[torch.Tensor]) -> int:
    """Bytes that autograd keeps of ``run()`` for its backward pass, each storage counted once.

    without: tensors that do not count.
    """
    storages = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in without}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()  # kept, so that its memory is not used again
    del result
    return sum(storages.values())


def measure_memory(context: Context) -> dict[str, Any]:
    """Bytes that are free on this rank's device and node; on rank 0 what a rank will need."""
    device, need = context.runtime.device, None
    if context.runtime.rank == 0:
        world = context.runtime.world
        need = vars(estimate(context.config, context.data, context.held_out, world))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return {"need": need, "device": free, "host": free_memory()}


def judge_memory(context: Context, ranks: list[dict[str, Any]]) -> list[CheckFinding]:
    """Each device must hold its rank, each node all of its ranks."""
    need = Need(**ranks[0]["need"])
    findings = []
    for node, there in context.ranks_by_node().items():
        devices = [ranks[rank]["device"] for rank in there if ranks[rank]["device"] is not None]
        host = min(ranks[rank]["host"] for rank in there)
        if devices:
            findings.append(_compare(node, "GPU", need.device, min(devices)))
        in_node = need.host if devices else need.device | need.host
        of_all = {name: size * len(there) for name, size in in_node.items()}
        findings.append(_compare(node, f"node, {counted(len(there), 'rank')}", of_all, host))
    return findings


def _compare(node: str, what: str, need: dict[str, int], there: int) -> CheckFinding:
    total = sum(need.values())
    largest = sorted(need.items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest if size)
    detail = f"{what}: needs {format_bytes(total)} of {format_bytes(there)} ({parts})"
    if total > there:
        detail += "; lower support.capacity or train.batch, or raise train.accumulation"
        return CheckFinding("memory", node, FAIL, detail)
    return CheckFinding("memory", node, WARN if total > TIGHT * there else OK, detail)


def free_memory() -> int:
    """Bytes of memory that this process may still take: of the machine, and of its cgroups."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":") for line in lines)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    # SLURM and Kubernetes set limits there (cgroup version 2).
    group = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("0::/")[2].strip()
    root = Path("/sys/fs/cgroup")
    for folder in ((root / group), *(root / group).parents):
        with suppress(OSError, ValueError):  # no limit is "max", or no file
            free = min(free, free_in_group(folder))
    return free


def free_in_group(folder: Path) -> int:
    """Bytes until the limit of the cgroup (version 2) whose files lie in ``folder``.

    Cached files that nobody has read lately are free, as in Kubernetes' working set: the kernel
    drops them first. ValueError or OSError where there is no limit.
    """
    limit, current = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
    usage = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return limit - current + int(usage["inactive_file"])


CHECKS = (Check("memory", measure_memory, judge_memory, needs=("batch", "index")),)
