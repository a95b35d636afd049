"""How much a training step costs against the encoder it trains.

    python -m benchmarks.step --batch 64 256 --json FILE
    python -m benchmarks.step --terms imu_near imu_signal --encoder conv_stats --json FILE

``--support`` and ``--index`` name sizes and an index of the support set; each size is a run. With
``--terms``, also how much a step costs with a term more than the paper's six, on the same
batches of sessions. All figures come from one process in alternating rounds, so that a machine
whose speed drifts slows all alike, and are counted in CPU time of the process on a CPU.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import clock_of
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import SAMPLES, fill_support, write_random_shards
from primus_scale.command_parser import Parser
from primus_scale.config import Config
from primus_scale.config_file import apply_overrides
from primus_scale.data.reader import BatchLoader
from primus_scale.distributed.group import Runtime, start_runtime, stop_runtime
from primus_scale.distributed.precision import choose_precision
from primus_scale.sample import CHANNELS
from primus_scale.train.run import Run, build_run
from primus_scale.train.step import train_step

WARMUP_STEPS = 2
RENEWED = 0.4  # of the support set, after which its index is in use, as in most of a run
SESSIONS = 8  # in a batch, with --terms
PAPER = "six terms"  # name of the run without further terms


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure_all)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.step",
        description="Windows/s of the whole training step (reading packed shards, views, neighbour "
        "search in a full support set, losses, optimiser) and of the encoder's forward and "
        "backward alone on resident data, both on two views a window, in alternating rounds. On a "
        "CPU, per second of process CPU time.",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="batch sizes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each of the two")
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    precisions = ["auto", "fp32", "bf16"]
    parser.add_argument("--precision", choices=precisions, default="fp32", help="of the run")
    parser.add_argument("--encoder", default="stacked_rnn", help="encoder.name of the run")
    parser.add_argument(
        "--terms",
        choices=["imu_near", "imu_signal"],
        nargs="+",
        default=[],
        help="terms of weight 1 beside the paper's six, each measured in a run of its own",
    )
    sizes = "entries of the support set, full"
    parser.add_argument("--support", type=int, nargs="+", default=[8192], help=sizes)
    parser.add_argument("--index", default="auto", help="support.index of the run")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure_all(args: argparse.Namespace) -> int:
    """Measure every batch size, print the table and write the JSON file."""
    rows = []
    for batch in args.batch:
        with tempfile.TemporaryDirectory() as folder:
            config = _config(Path(folder), batch, args)
            write_random_shards(config.data.train[0])
            for entries in args.support:
                config = apply_overrides(config, [f"support.capacity={entries}"])
                found = _measure(config, args.terms, args.rounds, args.steps)
                rows.append({"batch": batch, "support": entries, **found})
    print("windows/s, medians")
    print(f"{'batch':>6} {'support':>8} {'whole step':>14} {'encoder alone':>14} {'cost':>6}")
    for row in rows:
        line = (
            f"{row['batch']:>6} {row['support']:>8} {row['step_windows_per_s']:>14.1f} "
            f"{row['encoder_windows_per_s']:>14.1f} {row['cost']:>6.3f}"
        )
        for term, cost in row["term_cost"].items():
            line += f"   with {term}: {cost:.3f} of the whole step"
        print(line)
    settings = {name: getattr(args, name) for name in ("encoder", "precision", "index", "rounds")}
    write_figures(args.json, args.threads, {**settings, "rows": rows})
    return 0


def _config(folder: Path, batch: int, args: argparse.Namespace) -> Config:
    data: dict[str, Any] = {"train": [str(folder / "shards")]}
    if args.terms:
        data["session_windows"] = batch // SESSIONS
    return Config.model_validate(
        {
            "name": "bench",
            "output": str(folder / "run"),
            "data": data,
            "encoder": {"name": args.encoder},
            "support": {"index": args.index},
            "train": {
                "batch": batch,
                "steps": 100_000,  # more than are timed
                "precision": args.precision,
                "threads": args.threads,
            },
        }
    )


def _measure(config: Config, terms: Sequence[str], rounds: int, steps: int) -> dict[str, Any]:
    """Medians over rounds of both rates, and the medians of ratios round by round.

    cost: of the whole step, in steps of the encoder alone; term_cost: of a step with one of
    ``terms``, in whole steps.
    """
    overrides = {term: f"objective.weights.{term}=1" for term in terms}
    configs = {PAPER: config} | {
        term: apply_overrides(config, [override]) for term, override in overrides.items()
    }
    runtime = start_runtime(config.train)
    with ExitStack() as stack:
        stack.callback(stop_runtime, runtime)
        runs = {name: _start_run(each, runtime, stack) for name, each in configs.items()}
        wholes = {name: _whole_step(*each) for name, each in runs.items()}
        alone = _encoder_alone(runs[PAPER][0])
        for name, (run, _) in runs.items():
            wholes[name]()  # its search starts to build the index of a large set
            assert run.support is not None
            again = int(RENEWED * config.support.capacity)
            fill_support(run.support, again, runtime.device)
        timer = _timer(runtime.device)
        for _ in range(WARMUP_STEPS):
            for step in (alone, *wholes.values()):
                step()
        times = [
            (timer(alone, steps), {name: timer(whole, steps) for name, whole in wholes.items()})
            for _ in range(rounds)
        ]
    windows = config.train.batch * steps
    return {
        "step_windows_per_s": windows / statistics.median(whole[PAPER] for _, whole in times),
        "encoder_windows_per_s": windows / statistics.median(alone_s for alone_s, _ in times),
        "cost": statistics.median(whole[PAPER] / alone_s for alone_s, whole in times),
        "term_cost": {
            term: statistics.median(whole[term] / whole[PAPER] for _, whole in times)
            for term in terms
        },
    }


def _start_run(config: Config, runtime: Runtime, stack: ExitStack) -> tuple[Run, BatchLoader]:
    """A run with a full support set and its batches, both closed with ``stack``."""
    run = build_run(config, runtime)
    stack.enter_context(closing(run.engine))
    loader = stack.enter_context(run.batches(start_step=0))
    assert run.support is not None
    fill_support(run.support, config.support.capacity, runtime.device)
    return run, loader


def _whole_step(run: Run, loader: BatchLoader) -> Callable[[], object]:
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
    bf16 = choose_precision(config.precision, run.runtime.device) == "bf16"

    def step() -> object:
        with torch.autocast(imu.device.type, torch.bfloat16, enabled=bf16):
            out = encoder(imu)
        loss = out.ss.float().square().mean()
        for embedding in out.mm.values():
            loss = loss + embedding.float().square().mean()
        return torch.autograd.grad(loss, list(encoder.parameters()))

    return step


def _timer(device: torch.device) -> Callable[[Callable[[], object], int], float]:
    """Seconds of some steps."""
    clock = clock_of(device)

    def measure(step: Callable[[], object], steps: int) -> float:
        start = clock()
        for _ in range(steps):
            step()
        return clock() - start

    return measure


if __name__ == "__main__":
    sys.exit(main())
