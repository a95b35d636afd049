"""The pooled few-shot benchmark on HAPT: splits x pretraining seeds, each with its label draws.

    python -m benchmarks.pooled_few_shot --config configs/few_shot_hapt.yaml --out runs/pooled

For every split of people it builds and embeds the built-in data, for every seed it pretrains in
one process and evaluates, ``--jobs`` chains at a time, and pools the results into
``few_shot.json`` and ``report.html``. What a killed run has finished is not done again, down to
single draws of an evaluation; evaluations of one split share what does not depend on the
pretraining.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from primus_scale.cli import GOES_ON, Parser, add_config_arguments, answer
from primus_scale.config_file import load_config
from primus_scale.evaluate import pool_reports
from primus_scale.storage.files import check_writable

VIDEO_TEACHER, TEXT_TEACHER = "efficientnet-lite0", "minilm"
COMMAND = (sys.executable, "-m", "primus_scale.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of the benchmark that is left; a user's error is one line and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _run_benchmark(args), GOES_ON)


def _run_benchmark(args: argparse.Namespace) -> int:
    config = load_config(args.config, args.overrides)  # also: what is wrong there shows at once
    order = "shuffled" if config.data.session_windows is None else "sessions"
    out = Path(args.out)
    check_writable(out)
    # Chains of one split share its data, so data come first; both stages use all jobs.
    with ThreadPoolExecutor(args.jobs) as jobs:
        list(jobs.map(lambda split: _build_data(out, split, order), args.splits))
        pairs = [(split, seed) for seed in args.seeds for split in args.splits]
        reports = list(jobs.map(lambda pair: _pretrain_and_evaluate(args, out, *pair), pairs))
    print(f"pooled   {pool_reports(reports, out)}")
    return 0


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks.pooled_few_shot", description=__doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of data and results")
    parser.add_argument("--splits", type=int, nargs="+", default=[1, 2, 3], help="splits of people")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="pretraining seeds")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    add_config_arguments(parser)
    return parser


def _build_data(out: Path, split: int, order: str) -> None:
    """Window, packed (in ``order``) and few-shot shards of one split, unless they are there."""
    data = out / f"split{split}" / "data"
    log = out / f"split{split}" / "data.log"
    if not (data / "few_shot/test/index.json").exists():
        # few_shot/test is finished last: without it the rest is of a build that was killed.
        place = ("--out", str(data), "--split", str(split), "--overwrite")
        _run(log, "shards", "build", "demo", *place)
    for part in ("train", "validation"):
        if not (data / "packed" / part / "index.json").exists():
            source, packed = str(data / "windows" / part), str(data / "packed" / part)
            options = ("--video", VIDEO_TEACHER, "--text", TEXT_TEACHER, "--order", order)
            _run(log, "shards", "embed", "--src", source, "--out", packed, *options)


def _pretrain_and_evaluate(args: argparse.Namespace, out: Path, split: int, seed: int) -> Path:
    """Pretrain on one split with one seed and evaluate; the path of the few-shot JSON."""
    data, run = out / f"split{split}" / "data", out / f"split{split}" / f"seed{seed}"
    result = run / "few_shot" / "few_shot.json"
    if result.exists():
        return result
    overrides = [
        f"output={run}",
        f"seed={seed}",
        f"data.train={json.dumps([str(data / 'packed/train')])}",
        f"data.validation={json.dumps([str(data / 'packed/validation')])}",
        *args.overrides,
    ]
    log = out / f"split{split}" / f"seed{seed}.log"
    _run(log, "pretrain", "--config", args.config, *overrides)
    # Another seed draws other initial weights for the scratch arm, and the same labels.
    shared = ("--finished", str(out / f"split{split}" / "few_shot.finished.jsonl"))
    _run(log, "evaluate", "--run", str(run), "--data", str(data / "few_shot"), *shared)
    return result


def _run(log: Path, *command: str) -> None:
    """Run one primus-scale command, its output appended to ``log``."""
    print("running  primus-scale", *command, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run([*COMMAND, *command], stdout=stream, stderr=stream, check=False)
    if done.returncode != 0:
        message = f"primus-scale {command[0]} ended with {done.returncode}; see {log}"
        raise ChildProcessError(message)


if __name__ == "__main__":
    sys.exit(main())
