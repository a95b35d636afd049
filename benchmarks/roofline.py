"""How close encoders come to what this machine can compute.

    python -m benchmarks.roofline --precision fp32 bf16 --json FILE

The roof is the rate of a large matrix product, or what memory can bring where an encoder computes
little on each byte (Williams et al., CACM 2009). Operations are counted by torch as two for each
multiplication and addition, in matrix products and convolutions only.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import clock_of
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import SAMPLES, untrained_encoder
from primus_scale.command_parser import Parser
from primus_scale.config import EncoderConfig
from primus_scale.sample import CHANNELS

PRODUCT = 2048  # rows and columns of the matrices of the roof
COPIED = 2**26  # float32 numbers of a copy, far more than a cache holds
ENCODERS = ("conv_stats", "transformer", "stacked_rnn_time", "stacked_rnn")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.roofline",
        description="GFLOP/s of a matrix product, GB/s of a copy, and GFLOP/s of encoders in "
        "forward and backward; on a CPU by the CPU time of one thread.",
    )
    parser.add_argument("--encoder", nargs="+", default=ENCODERS, help="encoder.name")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--batch", type=int, default=256, help="windows")
    parser.add_argument("--rounds", type=int, default=5, help="of everything, in turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    clock = clock_of(args.device)
    work = _products(args) | {"copy": _copy(args.device)} | _encoders(args)
    operations = {name: _operations(step) for name, step in work.items()}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(args.rounds):
        for name, step in work.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    rate = {name: operations[name] / statistics.median(seconds[name]) / 1e9 for name in work}
    copied_gb = 2 * 4 * COPIED / 1e9  # read and written
    print(f"copy in memory {copied_gb / statistics.median(seconds.pop('copy')):.1f} GB/s")
    print(f"{'':>28} {'GFLOP':>8} {'GFLOP/s':>9} {'of the product':>15}")
    rows: list[dict[str, Any]] = []
    for name in seconds:
        share = rate[name] / rate[f"product {name.split()[-1]}"]
        print(f"{name:>28} {operations[name] / 1e9:>8.2f} {rate[name]:>9.1f} {share:>15.2f}")
        rows.append({"name": name, "gflop": operations[name] / 1e9, "seconds": seconds[name]})
    settings = {name: getattr(args, name) for name in ("batch", "device")}
    write_figures(args.json, 1, {**settings, "rows": rows})
    return 0


def _operations(step: Callable[[], object]) -> int:
    """Of one step, which also warms it up."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _products(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    matrices = {
        name: torch.randn(PRODUCT, PRODUCT, device=args.device, dtype=_dtype(name))
        for name in args.precision
    }
    return {f"product {name}": partial(torch.mm, m, m) for name, m in matrices.items()}


def _copy(device: str) -> Callable[[], object]:
    source = torch.ones(COPIED, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _encoders(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    imu = torch.randn(args.batch, len(CHANNELS), SAMPLES, device=args.device)
    return {
        f"{name} {precision}": _training(name, imu, precision)
        for name in args.encoder
        for precision in args.precision
    }


def _training(name: str, imu: torch.Tensor, precision: str) -> Callable[[], object]:
    """Forward and backward of an encoder of its default size."""
    encoder = untrained_encoder(EncoderConfig.model_validate({"name": name})).to(imu.device)
    trained = [weight for weight in encoder.backbone.parameters() if weight.requires_grad]

    def step() -> object:
        with torch.autocast(imu.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = encoder.backbone(imu).float().square().mean()
        return torch.autograd.grad(loss, trained)

    return step


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


if __name__ == "__main__":
    sys.exit(main())
