"""Is each of these faults caught? One-line changes of the program, each run against its tests.

    python -m tests.mutations                 # all; ends with 1 where one is not caught
    python -m tests.mutations gather seed     # those whose name has one of the words

The faults are those of ``tests.mutation_faults``. Each is put into a copy of the checkout, never
into the checkout itself. ``make test`` does not run it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutation_faults import FAULTS, Fault

ROOT = Path(__file__).parents[1]
LONGEST_S = 180  # of a test; with a fault, some would wait for what never comes
PACKAGES = ("primus_scale", "shards", "launch", "benchmarks", "tests", "configs")


def run(fault: Fault, checkout: Path) -> bool:
    """Whether the tests fail with the fault in ``checkout``, which is then as it was."""
    path = checkout / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return run_tests(fault.tests, checkout)
    finally:
        path.write_text(text, encoding="utf-8")


def run_tests(tests: str, checkout: Path) -> bool:
    """Whether some of the tests fail; RuntimeError where they cannot be run."""
    options = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", f"--timeout={LONGEST_S}")
    shared = ROOT.parent / "shared"
    env = {
        "PRIMUS_RECORDINGS": str(shared / "recordings"),  # the copy lies elsewhere
        "PRIMUS_CASES": str(shared / "cases"),
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *sorted(set(tests.split()))],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # neither all passed nor some failed
        raise RuntimeError(done.stdout + done.stderr)
    return done.returncode == 1


def copy_checkout(folder: Path) -> Path:
    """What the tests need of the checkout, without what it has compiled."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def main() -> int:
    """Put in each, some at a time, and say which are caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only faults whose name has one of them")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (default: 2)")
    args = parser.parse_args()
    chosen = [f for f in FAULTS if not args.words or any(word in f.name for word in args.words)]
    gone = [f.name for f in chosen if (ROOT / f.file).read_text(encoding="utf-8").count(f.old) != 1]
    if gone:
        raise ValueError(f"no line, or more than one, for: {'; '.join(gone)}; correct the list")
    survived = []
    with (
        tempfile.TemporaryDirectory(prefix="mutations-") as folder,
        ThreadPoolExecutor(args.jobs) as pool,
    ):
        free: SimpleQueue[Path] = SimpleQueue()  # each checkout has one fault at a time
        for number in range(args.jobs):
            free.put(copy_checkout(Path(folder) / str(number)))

        def plant(fault: Fault) -> tuple[bool, float]:
            checkout, start = free.get(), time.monotonic()
            try:
                return run(fault, checkout), time.monotonic() - start
            finally:
                free.put(checkout)

        whole = free.get()
        if run_tests(" ".join(each.tests for each in chosen), whole):
            raise RuntimeError("the tests fail without any fault; run them in the checkout first")
        free.put(whole)
        for fault, (caught, took_s) in zip(chosen, pool.map(plant, chosen), strict=True):
            verdict = "caught" if caught else "SURVIVED"
            print(f"{verdict}  {fault.name}  ({took_s:.0f} s)", flush=True)
            if not caught:
                survived.append(fault.name)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} faults are caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
