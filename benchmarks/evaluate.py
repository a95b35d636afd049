"""How long ``primus-scale evaluate`` takes in one process and in as many as there are cores.

    python -m benchmarks.evaluate --encoder runs/demo/encoder --data data/demo/few_shot --json FILE
    python -m benchmarks.evaluate steps=100 'k=[1,5]'     # on random windows, for a quick look

The two take turns, and their results must be the same to the bit.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import COMMAND, Taken, run_timed
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import export_untrained, write_few_shot
from primus_scale.command_parser import Parser, add_overrides
from primus_scale.evaluate.command import RESULTS_FILE


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.evaluate",
        description="Seconds of the whole command, and of CPU in its processes.",
    )
    parser.add_argument("--encoder", metavar="DIR", help="exported encoder (default: untrained)")
    parser.add_argument("--data", metavar="URL", help="label/ and test/ (default: random windows)")
    parser.add_argument("--people", type=int, default=12, help="of the random windows")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    add_overrides(parser)
    return parser


def _measure(args: argparse.Namespace) -> int:
    taken: dict[int, list[Taken]] = {jobs: [] for jobs in sorted({1, args.jobs})}
    results: list[Any] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoder = args.encoder or export_untrained(folder / "encoder")
        data = args.data or write_few_shot(folder / "task", args.people)
        for number in range(args.rounds):
            for jobs, rows in taken.items():
                out = folder / f"{number}-{jobs}"
                places = ("--encoder", encoder, "--data", data, "--out", str(out))
                options = ("--jobs", str(jobs), *args.overrides)
                rows.append(run_timed((*COMMAND, "evaluate", *places, *options)))
                results.append(_without_seconds(out / RESULTS_FILE))
    assert all(each == results[0] for each in results), "the number of processes changes results"
    print(f"{'processes':>10} {'seconds':>9} {'CPU seconds':>12}   medians")
    for jobs, rows in taken.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{jobs:>10} {wall_s:>9.1f} {cpu_s:>12.1f}")
    figures = {jobs: [row._asdict() for row in rows] for jobs, rows in taken.items()}
    given = {"encoder": args.encoder, "data": args.data, "settings": args.overrides}
    write_figures(args.json, 1, {**given, "taken": figures})
    return 0


def _without_seconds(path: Path) -> Any:
    results = json.loads(path.read_text(encoding="utf-8"))
    for run in results["runs"]:
        del run["cost"]
    return results


if __name__ == "__main__":
    sys.exit(main())
