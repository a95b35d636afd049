"""What the benchmarks share: how a command of theirs is run, and the file of its figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from primus_scale.allocator import keep_freed_memory
from primus_scale.cli import answer
from primus_scale.command_parser import Parser
from primus_scale.monitor.provenance import describe_environment


def run_benchmark(
    parser: Parser, argv: Sequence[str] | None, measure: Callable[[argparse.Namespace], int]
) -> int:
    """Exit code of ``measure`` with the arguments; a user's error is one line and exit code 1."""
    args = parser.parse_args(argv)
    keep_freed_memory()  # as the commands do
    return answer(parser.prog, lambda: measure(args), "no figures were written; start it again")


def write_figures(file: str | None, threads: int, figures: Mapping[str, Any]) -> None:
    """Write the figures with the machine and the versions next to them; None: nowhere."""
    if file is None:
        return
    about = {"machine": describe_machine(threads), "environment": describe_environment()}
    Path(file).write_text(json.dumps({**about, **figures}, indent=1) + "\n", encoding="utf-8")
