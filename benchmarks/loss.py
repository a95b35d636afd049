"""Time and peak memory of the loss against the size of the batch.

    python -m benchmarks.loss --batch 1024 2048 4096 --json docs/figures/bench_loss.json
    python -m benchmarks.loss --batch 8192 32768 --ranks 8 --forms blocks --rounds 1

Each point is a process of its own, so that its peak is its own. *blocks* is the program's loss.
*dense* is the same six terms by plain torch, with a matrix of logits for each term. They take
turns, round by round. With ``--ranks W`` the process is rank 0 of W: it has N / W queries and all N
keys, and messages between ranks bring the process its own rows, W times.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from benchmarks.fake_ranks import pretend_ranks
from benchmarks.machine import clock_of
from benchmarks.run import run_benchmark, write_figures
from primus_scale.cli import Parser
from primus_scale.config import ObjectiveConfig
from primus_scale.encoders.base import Embeddings
from primus_scale.objective.contrast import unit_rows
from primus_scale.objective.loss import SAME_KEY_COSINE, primus_loss
from primus_scale.sample import Batch
from primus_scale.support import Neighbours

WIDTH, NEAR_WIDTH = 512, 64
PRESENT = 0.9  # share of rows with a teacher's embedding
SESSION = 64  # windows
TEACHERS = ("video", "text")
PAPER = "paper"  # name of the run without further terms
MIB = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.loss",
        description="Seconds of forward and backward of the six terms (width 512), CPU time on a "
        "CPU, and the peak of memory above that of the embeddings, each point in its own process.",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024, 2048, 4096])
    parser.add_argument("--ranks", type=int, default=1, help="be rank 0 of so many")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--loss", choices=["info_nce", "sigmoid"], default="info_nce")
    parser.add_argument("--terms", nargs="+", choices=[PAPER, "imu_near"], default=[PAPER])
    parser.add_argument("--rounds", type=int, default=3, help="processes of each form")
    parser.add_argument("--steps", type=int, default=1, help="in a process, after one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    return parser


def _measure(args: argparse.Namespace) -> int:
    if args.point:
        print(json.dumps(_point(args, args.batch[0], args.forms[0])))
        return 0
    rows = []
    print(f"{'N':>6} {'form':>7} {'seconds':>8} {'peak, MB':>9}   rank 0 of {args.ranks}")
    for batch in args.batch:
        found: dict[str, list[dict[str, float]]] = {form: [] for form in args.forms}
        for _ in range(args.rounds):
            for form in args.forms:
                found[form].append(_in_a_process(args, batch, form))
        for form, points in found.items():
            row = {name: [point[name] for point in points] for name in points[0]}
            middle = {name: statistics.median(values) for name, values in row.items()}
            rows.append({"N": batch, "form": form, **middle, "rounds": row})
            print(f"{batch:>6} {form:>7} {middle['seconds']:>8.2f} {middle['peak_mb']:>9.0f}")
    settings = {name: getattr(args, name) for name in ("ranks", "loss", "terms", "steps", "device")}
    write_figures(args.json, args.threads, {**settings, "rows": rows})
    return 0


def _in_a_process(args: argparse.Namespace, batch: int, form: str) -> dict[str, float]:
    options = {
        name: getattr(args, name) for name in ("ranks", "loss", "steps", "threads", "device")
    }
    command = [sys.executable, "-m", "benchmarks.loss", "--point", "--batch", str(batch)]
    command += ["--forms", form, "--terms", *args.terms]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    point: dict[str, float] = json.loads(done.stdout)
    return point


def _point(args: argparse.Namespace, batch: int, form: str) -> dict[str, float]:
    """Seconds of a forward and backward pass, and its peak of memory above that before it."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    weights = {"imu_near": 1.0 if "imu_near" in args.terms else 0.0}
    config = ObjectiveConfig.model_validate({"loss": args.loss, "weights": weights})
    step, clock = FORMS[form], clock_of(args.device)
    with pretend_ranks(args.ranks):
        inputs = _inputs(batch // args.ranks, args.device)
        before = _resident(args.device)
        step(_inputs(8, args.device), config)  # what the first call allocates is no part of it
        seconds = []
        for _ in range(args.steps):
            start = clock()
            step(inputs, config)
            seconds.append(clock() - start)
    return {"seconds": min(seconds), "peak_mb": (_peak(args.device) - before) / MIB}


class _Inputs(NamedTuple):
    """What a loss is of: two views of a rank's rows, with their teachers and neighbours."""

    view0: Embeddings
    view1: Embeddings
    temperatures: Mapping[str, torch.Tensor]
    batch: Batch
    neighbours: Neighbours


def _inputs(rows: int, device: str) -> _Inputs:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    def view() -> Embeddings:
        shared = draw(rows, WIDTH).requires_grad_()
        ss, near = (draw(rows, width).requires_grad_() for width in (WIDTH, NEAR_WIDTH))
        return Embeddings(shared, ss, dict.fromkeys(TEACHERS, shared), near)

    number = torch.arange(rows, device=device)
    present = {name: torch.rand(rows, device=device) < PRESENT for name in TEACHERS}
    batch = Batch(
        torch.zeros(rows, 1, 1, device=device),
        uid=number,
        recording=number // SESSION,
        session=number // SESSION,
        label=number,
        embeddings={name: unit_rows(draw(rows, WIDTH)) for name in TEACHERS},
        present=present,
        start_s=(number % SESSION).double() * 1.25,
        span_s=4.98,
    )
    everyone = torch.ones(rows, 1, dtype=torch.bool, device=device)
    uid = number[:, None] + 10**6
    neighbours = Neighbours(
        uid=uid,
        recording=uid // SESSION,
        session=uid // SESSION,
        age=uid,
        score=draw(rows, 1),
        valid=everyone,
        embeddings={name: unit_rows(draw(rows, 1, WIDTH)) for name in (*TEACHERS, "imu")},
        present=dict.fromkeys((*TEACHERS, "imu"), everyone),
    )
    temperatures = {
        name: torch.tensor(0.1, device=device, requires_grad=True) for name in ("mm", "ss", "near")
    }
    return _Inputs(view(), view(), temperatures, batch, neighbours)


def _blocks(inputs: _Inputs, config: ObjectiveConfig) -> None:
    biases = {name: temperature - 10.1 for name, temperature in inputs.temperatures.items()}
    loss = primus_loss(*inputs, config, biases=biases)
    loss.total.backward()


def _dense(inputs: _Inputs, config: ObjectiveConfig) -> None:
    """The six terms of InfoNCE by plain torch, in one process."""
    view0, view1, temperatures, batch, neighbours = inputs
    total = torch.zeros(())
    for modality in (*TEACHERS, "imu"):
        queries = unit_rows(view0.mm[modality] if modality in TEACHERS else view0.ss)
        direct = batch.embeddings[modality] if modality in TEACHERS else view1.ss
        valid = batch.present.get(modality, neighbours.valid[:, 0])
        temperature = temperatures["mm" if modality in TEACHERS else "ss"]
        for keys in (direct, neighbours.embeddings[modality][:, 0]):
            keys = unit_rows(keys)
            same = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
            if modality in TEACHERS:
                same = same | (keys.detach() @ keys.detach().T > SAME_KEY_COSINE)
            excluded = ~(valid[:, None] & valid) | same
            logits = queries @ keys.T / temperature
            masked = logits.masked_fill(excluded.fill_diagonal_(False), -torch.inf)
            target = torch.arange(len(keys), device=keys.device)
            losses = functional.cross_entropy(masked, target, reduction="none")
            losses = losses + functional.cross_entropy(masked.T, target, reduction="none")
            total = total + 0.5 * torch.where(valid, losses, 0.0).sum() / valid.sum()
    total.backward()


def _resident(device: str) -> int:
    """Bytes that this process holds now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    pages = int(open("/proc/self/statm").read().split()[1])  # noqa: SIM115, PTH123
    return pages * resource.getpagesize()


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


FORMS: dict[str, Callable[..., None]] = {"blocks": _blocks, "dense": _dense}

if __name__ == "__main__":
    sys.exit(main())
