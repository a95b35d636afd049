"""How much a training step costs beside the encoder it trains (``primus-scale bench step``).

Both figures come from one process in alternating rounds, so that a machine whose speed drifts
slows both alike, and are counted in CPU time of the process where the device is a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from launch.machine import describe_machine
from primus_scale.accumulate import train_step
from primus_scale.config import Config
from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import make_block
from primus_scale.engine import start_runtime, stop_runtime
from primus_scale.provenance import describe_environment
from primus_scale.run import Run, build_run
from primus_scale.sample import CHANNELS, WindowMeta, window_uid
from primus_scale.support import SupportEntries, SupportSet
from shards.writer import PackedShardWriter

RATE_HZ, SAMPLES, BLOCK = 50.0, 250, 256
TEACHER_DIMS = {"video": 512, "text": 512}  # CLIP's, in one space: one shared head, as in the paper
BLOCKS = 16
WARMUP_STEPS = 2


def bench_step(args: argparse.Namespace) -> int:
    """Measure every batch size, print the table and write the JSON file."""
    rows = []
    for batch in args.batch:
        with tempfile.TemporaryDirectory() as folder:
            config = _config(Path(folder), batch, args)
            _write_shards(config.data.train[0])
            rows.append({"batch": batch, **_measure(config, args.rounds, args.steps)})
    print(f"{'batch':>6} {'whole step':>14} {'encoder alone':>14} {'cost':>6}   windows/s, median")
    for row in rows:
        print(
            f"{row['batch']:>6} {row['step_windows_per_s']:>14.1f} "
            f"{row['encoder_windows_per_s']:>14.1f} {row['cost']:>6.3f}"
        )
    if args.json:
        report = {
            "machine": describe_machine(args.threads),
            "environment": describe_environment(),
            "encoder": args.encoder,
            "precision": args.precision,
            "rounds": args.rounds,
            "rows": rows,
        }
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _config(folder: Path, batch: int, args: argparse.Namespace) -> Config:
    return Config.model_validate(
        {
            "name": "bench",
            "output": str(folder / "run"),
            "data": {"train": [str(folder / "shards")]},
            "encoder": {"name": args.encoder},
            "train": {"batch": batch, "precision": args.precision, "threads": args.threads},
        }
    )


def _write_shards(url: str) -> None:
    """Random windows with random unit embeddings: contents do not change the cost."""
    rng = np.random.default_rng(0)
    spaces = {
        modality: TeacherSpace(dim=dim, key="bench", space="bench", teacher="bench")
        for modality, dim in TEACHER_DIMS.items()
    }
    with PackedShardWriter(url, rate_hz=RATE_HZ, teachers=spaces) as writer:
        for number in range(BLOCKS):
            metas = [_meta(number * BLOCK + row) for row in range(BLOCK)]
            imu = rng.standard_normal((BLOCK, len(CHANNELS), SAMPLES)).astype(np.float32)
            embeddings = {m: _unit_rows(rng, BLOCK, dim) for m, dim in TEACHER_DIMS.items()}
            present = {m: np.ones(BLOCK, dtype=np.bool_) for m in TEACHER_DIMS}
            writer.write(make_block(imu, metas, (), embeddings=embeddings, present=present))


def _meta(number: int) -> WindowMeta:
    return WindowMeta(
        uid=window_uid("bench", str(number), "none", 0.0),
        dataset="bench",
        recording=str(number),
        device="none",
        placement="none",
        person="none",
        start_s=0.0,
    )


def _unit_rows(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    values = rng.standard_normal((rows, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def _measure(config: Config, rounds: int, steps: int) -> dict[str, float]:
    """Medians over rounds of both rates, and the median of their ratio round by round."""
    runtime = start_runtime(config.train)
    try:
        run = build_run(config, runtime)
        with closing(run.engine), run.batches(start_step=0) as loader:
            assert run.support is not None
            _fill(run.support, runtime.device)
            whole = _whole_step(run, loader)
            alone = _encoder_alone(run)
            timer = _timer(runtime.device)
            for _ in range(WARMUP_STEPS):
                whole()
                alone()
            times = [(timer(whole, steps), timer(alone, steps)) for _ in range(rounds)]
    finally:
        stop_runtime(runtime)
    windows = config.train.batch * steps
    return {
        "step_windows_per_s": windows / statistics.median(whole for whole, _ in times),
        "encoder_windows_per_s": windows / statistics.median(alone for _, alone in times),
        "cost": statistics.median(whole / alone for whole, alone in times),
    }


def _fill(support: SupportSet, device: torch.device) -> None:
    """Search costs what it does in a long run: the set is full."""
    count = support.capacity
    generator = torch.Generator(device).manual_seed(0)
    rows = {
        modality: torch.nn.functional.normalize(
            torch.randn(count, dim, generator=generator, device=device), dim=1
        )
        for modality, dim in support.dims.items()
    }
    ids = torch.arange(count, device=device)
    there = torch.ones(count, dtype=torch.bool, device=device)
    support.enqueue(SupportEntries(ids, ids, rows, dict.fromkeys(rows, there)))


def _whole_step(run: Run, loader: Any) -> Callable[[], object]:
    numbers = iter(range(1, run.config.train.steps))

    def step() -> object:
        batch = run.prepare(next(loader))
        views = run.views(batch, next(numbers))
        objective, lr = run.config.objective, run.config.optimizer.lr
        return train_step(run.engine, views, batch, run.support, objective, lr)

    return step


def _encoder_alone(run: Run) -> Callable[[], object]:
    """Forward and backward of two views, in the run's precision, without DeepSpeed."""
    config = run.config.train
    encoder = run.engine.model.encoder
    shape = (2 * config.batch, len(CHANNELS), SAMPLES)
    imu = torch.randn(shape, device=run.runtime.device)
    bf16 = config.precision == "bf16"

    def step() -> object:
        with torch.autocast(imu.device.type, torch.bfloat16, enabled=bf16):
            out = encoder(imu)
        loss = out.ss.float().square().mean()
        for embedding in out.mm.values():
            loss = loss + embedding.float().square().mean()
        return torch.autograd.grad(loss, list(encoder.parameters()))

    return step


def _timer(device: torch.device) -> Callable[[Callable[[], object], int], float]:
    """Seconds of some steps: CPU time of the process, or wall time of a device."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def measure(step: Callable[[], object], steps: int) -> float:
        start = clock()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - start

    return measure
