"""What the support service costs against the training step.

    python -m benchmarks.support --entries 8192 65536 --ranks 1 2 --json FILE --chart FILE

Real ranks under Ray Train step on random windows, with the service full. A lookup and an insert
are timed by themselves, while nothing else runs; then steps that ask one step ahead and steps that
ask when they need the answer take turns. The share of lookups in a step is the time of asking and
of waiting for the answer, that of inserts the time of handing them over.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from ray.train import RunConfig

from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import fill_support, write_random_shards
from launch.ray_cluster import RAY_SETTINGS, worker_trainer
from primus_scale.command_parser import Parser
from primus_scale.config import Config
from primus_scale.config_file import parse_config
from primus_scale.distributed.collectives import barrier
from primus_scale.distributed.group import start_runtime, stop_runtime
from primus_scale.objective.neighbours import (
    PendingNeighbours,
    exclusion,
    prefetch_neighbours,
    support_entries,
)
from primus_scale.sample import Batch
from primus_scale.support import Exclusion, SupportEntries, SupportSet
from primus_scale.train.run import Run, build_run
from primus_scale.train.step import train_step
from shards.tasks.ray_cluster import ray_cluster

FLAT_UP_TO = 100_000  # entries that are searched by brute force; more with the index
WARMUP_STEPS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure_all)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.support",
        description="Milliseconds of a lookup and of an insert of a batch, of the step, and "
        "the shares of lookups, with and without asking one step ahead, and of inserts in it; "
        "for several sizes of the support set and numbers of ranks.",
    )
    parser.add_argument(
        "--entries", type=int, nargs="+", default=[8192, 65536, 1048576], help="sizes of the set"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="of the training")
    parser.add_argument("--actors", type=int, default=2, help="that hold the set")
    parser.add_argument("--batch", type=int, default=256, help="windows a step, over all ranks")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of ranks and actors")
    parser.add_argument("--index", default="ivf", help="support.index of sets above 100,000")
    parser.add_argument("--gpus-per-actor", type=float, default=0.0, help="share of a GPU")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0, help="share of a GPU")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind of step")
    parser.add_argument("--steps", type=int, default=4, help="steps in a round")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--chart", metavar="FILE", help="draw a chart of cost against size there (.svg)"
    )
    return parser


def _measure_all(args: argparse.Namespace) -> int:
    """Measure every size with every number of ranks, print the table, write JSON and curve."""
    os.environ.update(RAY_SETTINGS)
    rows = []
    print(
        f"{'entries':>9} {'ranks':>5} {'index':>6} {'lookup':>9} {'insert':>9} {'step':>9} "
        f"{'lookups':>8} {'unasked':>8} {'inserts':>8}"
    )
    with tempfile.TemporaryDirectory() as folder, ray_cluster():
        write_random_shards(str(Path(folder) / "shards"))
        for entries in args.entries:
            for ranks in args.ranks:
                row = _measure(Path(folder), entries, ranks, args)
                rows.append(row)
                print(
                    f"{entries:>9} {ranks:>5} {row['index']:>6} {row['lookup_ms']:>6.1f} ms "
                    f"{row['insert_ms']:>6.1f} ms {row['step_ms']:>6.0f} ms "
                    f"{100 * row['share']:>6.2f} % {100 * row['unasked_share']:>6.2f} % "
                    f"{100 * row['insert_share']:>6.2f} %",
                    flush=True,
                )
    settings = {name: getattr(args, name) for name in ("batch", "actors", "rounds", "steps")}
    write_figures(args.json, args.threads, {**settings, "rows": rows})
    if args.chart:
        _draw(rows, Path(args.chart))
    return 0


def _measure(folder: Path, entries: int, ranks: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size with one number of ranks."""
    config = Config.model_validate(
        {
            "name": "bench",
            "output": str(folder / "run"),
            "data": {"train": [str(folder / "shards")]},
            "support": {
                "home": "service",
                "capacity": entries,
                "minimum_fill": 1,
                "storage": "float16",
                "index": "flat" if entries <= FLAT_UP_TO else args.index,
                "actors": args.actors,
                "threads": args.threads,
                "gpus_per_actor": args.gpus_per_actor,
                "timeout_s": 600,
            },
            "launch": {
                "workers": ranks,
                "cpus_per_worker": (os.cpu_count() or 1) / ranks,
                "gpus_per_worker": args.gpus_per_worker,
            },
            "train": {"batch": args.batch, "steps": 100_000, "threads": args.threads},
        }
    )
    run_config = RunConfig(name=f"bench-{entries}-{ranks}", storage_path=str(folder / "ray"))
    settings = {"rounds": args.rounds, "steps": args.steps}
    trainer = worker_trainer(_work, config, settings, run_config)
    result: Any = trainer.fit()
    return {
        "entries": entries,
        "ranks": ranks,
        "index": config.support.index,
        **result.return_value,
    }


def _work(settings: dict[str, Any]) -> Any:
    """The benchmark on one rank; the figures of rank 0 are reported."""
    config = parse_config(Config, settings["config"], source="bench")
    runtime = start_runtime(config.train)
    try:
        with closing(build_run(config, runtime)) as run, run.batches(start_step=0) as loader:
            assert run.support is not None
            fill_support(run.support, config.support.capacity)
            batch = run.prepare(next(loader))
            _await_learning(run.support, batch, exclusion(batch, config.objective.neighbours))
            alone = _alone(run, batch, run.support, settings["rounds"])
            return alone | _steps(run, loader, settings["rounds"], settings["steps"])
    finally:
        stop_runtime(runtime)


def _await_learning(support: SupportSet, batch: Batch, exclude: Exclusion) -> None:
    """An approximate index learns in the background; until then brute force answers."""
    one = torch.arange(1)
    while True:
        support.search(batch.embeddings["video"][:1], 1, exclude.at(one), "video")  # news of actors
        if not support.figures()["learning"]:
            barrier()
            return
        time.sleep(1.0)


def _alone(run: Run, batch: Batch, support: SupportSet, rounds: int) -> dict[str, float]:
    """Milliseconds of a lookup and of an insert of a rank's batch, all ranks at once."""
    videos = batch.embeddings["video"]
    exclude = exclusion(batch, run.config.objective.neighbours)
    view0 = run.engine.embed(batch.imu)
    entries = support_entries(view0, batch)
    lookups, inserts = [], []
    for _ in range(rounds):
        lookups.append(_seconds(lambda: support.search(videos, 1, exclude, "video")))
        inserts.append(_seconds(lambda: _insert(support, entries)))
    return {
        "lookup_ms": 1e3 * statistics.median(lookups),
        "insert_ms": 1e3 * statistics.median(inserts),
    }


def _insert(support: SupportSet, entries: SupportEntries) -> None:
    support.enqueue(entries)
    support.flush()


def _seconds(work: Callable[[], object]) -> float:
    barrier()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _steps(run: Run, loader: Iterator[Batch], rounds: int, steps: int) -> dict[str, float]:
    """Milliseconds of a step whose lookups were started ahead, and the share of each part.

    What lookups cost a step is asking for those of the next one, and waiting for its own.
    """
    kinds = {"asked": True, "unasked": False}
    taken: dict[str, list[list[_Step]]] = {kind: [] for kind in kinds}
    _round(run, loader, WARMUP_STEPS, ahead=True)
    for _ in range(rounds):
        for kind, ahead in kinds.items():
            taken[kind].append(_round(run, loader, steps, ahead))
    asked, unasked = taken["asked"], taken["unasked"]
    return {
        "step_ms": 1e3 * statistics.median(step.took for each in asked for step in each),
        "share": statistics.median(_share(each, "looked_up") for each in asked),
        "unasked_share": statistics.median(_share(each, "looked_up") for each in unasked),
        "insert_share": statistics.median(_share(each, "inserted") for each in asked),
    }


class _Step(NamedTuple):
    """Seconds that a step took, and that it spent on lookups and on inserts."""

    took: float
    looked_up: float
    inserted: float


def _share(steps: list[_Step], what: str) -> float:
    return sum(getattr(step, what) for step in steps) / sum(step.took for step in steps)


def _round(run: Run, loader: Iterator[Batch], steps: int, ahead: bool) -> list[_Step]:
    """Some steps in a row, after one that is not counted."""
    assert run.support is not None
    support = _Timed(run.support)
    neighbours = run.config.objective.neighbours
    batch, pending = run.prepare(next(loader)), None
    taken = []
    for _ in range(steps + 1):
        coming = run.prepare(next(loader))
        support.inserted = 0.0
        support.figures()  # resets ``waited_s``
        start = time.perf_counter()
        pending_next = prefetch_neighbours(coming, support, neighbours) if ahead else None
        asking = time.perf_counter() - start
        _train(run, support, batch, pending)
        took, waited = time.perf_counter() - start, support.figures()["waited_s"]
        taken.append(_Step(took, asking + waited, support.inserted))
        batch, pending = coming, pending_next
    return taken[1:]


def _train(run: Run, support: Any, batch: Batch, pending: PendingNeighbours | None) -> None:
    objective, lr = run.config.objective, run.config.optimizer.lr
    train_step(run.engine, run.views(batch, 1), batch, support, objective, lr, pending)


class _Timed:
    """A support set that counts the seconds of ``enqueue``."""

    def __init__(self, support: SupportSet) -> None:
        self._support = support
        self.inserted = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._support, name)

    def enqueue(self, entries: SupportEntries) -> None:
        start = time.perf_counter()
        self._support.enqueue(entries)
        self.inserted += time.perf_counter() - start


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Cost against size: a lookup and an insert by themselves, and their shares of the step."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    times, shares = figure.subplots(1, 2)
    panels = (
        (times, 1, {"lookup_ms": "lookup", "insert_ms": "insert"}),
        (shares, 100, {"unasked_share": "lookups, unasked", "share": "lookups, asked ahead"}),
    )
    for axis, scale, kinds in panels:
        for (field, label), style in zip(kinds.items(), ("-o", ":s"), strict=True):
            for colour, ranks in enumerate(sorted({row["ranks"] for row in rows})):
                mine = [row for row in rows if row["ranks"] == ranks]
                values = [scale * row[field] for row in mine]
                sizes = [row["entries"] for row in mine]
                name = f"{label}, {ranks} rank{'s' if ranks > 1 else ''}"
                axis.plot(sizes, values, style, color=f"C{colour}", label=name)
        axis.set(xscale="log", yscale="log", xlabel="entries")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    times.set(ylabel="ms", title="by itself")
    shares.set(ylabel="% of the step", title="share of the training step")
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
