"""What a step costs on one worker and on several, and with more data.

    python -m benchmarks.scale --workers 1 2 --data 1 3 10 --json FILE

The workers share one global batch. The speed-up is that on as many idle cores, without waiting:
the CPU time of a worker of the first count over that of a worker of this one. Each figure is the
difference between a long run and a short one, which takes out the start.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.commands import run_timed
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import write_random_shards
from primus_scale.command_parser import Parser

SHORT = 4  # steps of the short run
RUN = """
name: scale
output: {output}
data: {{train: [{data}]}}
encoder: {{name: {encoder}}}
train: {{batch: {batch}, steps: {steps}, threads: 1, precision: {precision}}}
calibration: {{kind: none}}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.scale",
        description="CPU ms of a whole step, over all workers, by torch's launcher and gloo.",
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="on this machine")
    parser.add_argument("--data", type=int, nargs="+", default=[1], help="times --blocks")
    parser.add_argument("--blocks", type=int, default=16, help="records of 256 windows at 1x")
    parser.add_argument("--batch", type=int, default=256, help="windows of the global batch")
    parser.add_argument("--steps", type=int, default=40, help="that are counted")
    parser.add_argument("--encoder", default="conv_stats", help="encoder.name of the run")
    parser.add_argument("--precision", default="fp32", help="train.precision of the run")
    parser.add_argument("--rounds", type=int, default=3, help="of all runs, in turn")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure(args: argparse.Namespace) -> int:
    points = list(product(args.data, args.workers))
    step_s: dict[tuple[int, int], list[float]] = {point: [] for point in points}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for times in args.data:
            write_random_shards(str(folder / f"{times}x"), blocks=times * args.blocks)
        for number in range(args.rounds):
            for times, workers in points:
                short, long = (
                    _cpu_s(
                        folder, f"{number}-{times}-{workers}-{steps}", times, workers, steps, args
                    )
                    for steps in (SHORT, SHORT + args.steps)
                )
                step_s[times, workers].append((long - short) / args.steps)
    rows = []
    print(f"{'data':>5} {'workers':>8} {'CPU ms a step':>14} {'speed-up':>9}   medians")
    for times, workers in points:
        found = step_s[times, workers]
        first = args.workers[0]
        speed_up = statistics.median(
            (alone / first) / (every / workers)
            for alone, every in zip(step_s[times, first], found, strict=True)
        )
        print(f"{times:>4}x {workers:>8} {1e3 * statistics.median(found):>14.1f} {speed_up:>9.2f}")
        rows.append({"data": times, "workers": workers, "step_s": found, "speed_up": speed_up})
    settings = {name: getattr(args, name) for name in ("batch", "blocks", "encoder", "precision")}
    write_figures(args.json, 1, {**settings, "rows": rows})
    return 0


def _cpu_s(
    folder: Path, name: str, times: int, workers: int, steps: int, args: argparse.Namespace
) -> float:
    """CPU seconds of all processes of a run."""
    file = folder / f"{name}.yaml"
    settings = {each: getattr(args, each) for each in ("batch", "encoder", "precision")}
    data = folder / f"{times}x"
    file.write_text(
        RUN.format(output=folder / name, data=data, steps=steps, **settings), encoding="utf-8"
    )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    ranks = ("--nproc-per-node", str(workers), "-m", "launch.deepspeed_train")
    return run_timed((*launcher, *ranks, "--config", str(file)), OMP_NUM_THREADS="1").cpu_s


if __name__ == "__main__":
    sys.exit(main())
