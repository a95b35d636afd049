"""Benchmarks that need no data of yours, one after the other.

    python -m benchmarks all --quick              # some minutes on two cores
    python -m benchmarks step evaluate --out DIR  # with the figures of each in DIR/NAME.json

A benchmark that fails is listed at the end, and the others go on.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take a moment

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from primus_scale.cli import answer
from primus_scale.command_parser import Parser
from primus_scale.storage.files import check_writable

ALL = "all"
# By name: arguments of a quick look.
QUICK: dict[str, tuple[str, ...]] = {
    "start": ("--rounds", "1", "--skip", "ray"),
    "reading": ("--rounds", "2", "--blocks", "16"),
    "data": ("--rounds", "2", "--blocks", "16", "--windows", "100000", "--records", "1000000"),
    "step": ("--batch", "64", "--rounds", "2", "--steps", "1"),
    "loss": ("--batch", "256", "1024", "--rounds", "1"),
    "recall": ("--entries", "65536"),
    "roofline": ("--rounds", "2"),
    "scale": ("--rounds", "1", "--steps", "20"),
    "embed": ("--rounds", "1"),
    "evaluate": ("--people", "4", "k=[1]", "draws=2", "trained_draws=1", "steps=20", "lrs=[1e-3]"),
}
TAKES_DEVICE = ("loss", "recall", "roofline", "embed")
WRITES_NO_FIGURES = ("recall",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; exit code 1 where one failed."""
    parser = build_parser()
    args = parser.parse_args(argv)
    names = list(QUICK) if ALL in args.names else args.names
    out = None if args.out is None else Path(args.out)

    def run() -> int:
        if out is not None:
            check_writable(out)
        failed = [name for name in names if not _run(name, args.quick, args.device, out)]
        for name in failed:
            print(f"failed   {name}", file=sys.stderr)
        return 1 if failed else 0

    return answer(parser.prog, run, "figures of those that ended are kept")


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[ALL, *QUICK], metavar="NAME", help="or all")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where it can be")
    parser.add_argument("--out", metavar="DIR", help="folder of the figures")
    return parser


def _run(name: str, quick: bool, device: str, out: Path | None) -> bool:
    command = [sys.executable, "-m", f"benchmarks.{name}", *(QUICK[name] if quick else ())]
    if name in TAKES_DEVICE:
        command += ["--device", device]
    if out is not None and name not in WRITES_NO_FIGURES:
        command += ["--json", str(out / f"{name}.json")]
    print("running ", *command[1:], flush=True)
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
