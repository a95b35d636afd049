"""The few-shot benchmark on HAPT: variants of a configuration x splits of people x seeds.

    python -m benchmarks.few_shot --study configs/studies/terms.yaml --out runs/terms
    python -m benchmarks.few_shot --config configs/few_shot_hapt.yaml --out runs/pooled

For every split of people it builds and embeds the built-in data, unless the folder of the split
holds data already; for every variant and seed it pretrains in one process and evaluates,
``--jobs`` of them at a time. It pools the runs of each variant into ``VARIANT/few_shot.json`` and
``report.html``, and writes what they come to into ``study.json`` and ``study.md``. What a killed
run has finished is not done again, down to single draws of an evaluation; evaluations of one split
share what does not depend on the pretraining.
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
from typing import NamedTuple

from benchmarks.study import Study, format_study, read_study, summarise, write_variant
from primus_scale.cli import GOES_ON, Parser, add_overrides, answer
from primus_scale.config import Config
from primus_scale.config_file import load_config
from primus_scale.evaluate import pool_reports
from primus_scale.storage.files import check_writable, write_atomically

TEACHERS = ("--video", "efficientnet-lite0", "--text", "minilm", "--signal", "handcrafted")
COMMAND = (sys.executable, "-m", "primus_scale.cli")


class Chain(NamedTuple):
    """One pretraining with its evaluation."""

    variant: str
    split: int
    seed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of the benchmark that is left; a user's error is one line and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _run_benchmark(args), GOES_ON)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks.few_shot", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", metavar="FILE", help="YAML file of variants (benchmarks/study.py)")
    what.add_argument("--config", metavar="FILE", help="YAML file of a run: one variant, default")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of data and results")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these of the study")
    parser.add_argument("--splits", type=int, nargs="+", help="splits of people, not the study's")
    parser.add_argument("--seeds", type=int, nargs="+", help="pretraining seeds, not the study's")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    add_overrides(parser)
    return parser


def _run_benchmark(args: argparse.Namespace) -> int:
    study = _choose(args)
    load_config(study.config, args.overrides)  # what is wrong in a configuration shows at once
    out = Path(args.out)
    check_writable(out)
    configs = {name: _variant_config(study, name, out, args.overrides) for name in study.variants}
    order = _packing_order(configs)
    chains = [
        Chain(name, split, seed)
        for name in study.variants
        for seed in study.seeds_of(name)
        for split in study.splits
    ]
    # Chains of one split share its data, so data come first; both stages use all jobs.
    with ThreadPoolExecutor(args.jobs) as jobs:
        list(jobs.map(lambda split: _build_data(out, split, order), study.splits))
        run = jobs.map(lambda chain: _pretrain_and_evaluate(out, chain, args.overrides), chains)
        reports = dict(zip(chains, run, strict=True))
    results = {}
    for name in study.variants:
        of_variant = [report for chain, report in reports.items() if chain.variant == name]
        path = pool_reports(of_variant, out / name)
        results[name] = json.loads(path.read_text(encoding="utf-8"))
        print(f"pooled   {path}")
    write_atomically(out / "study.json", json.dumps(summarise(results), indent=1) + "\n")
    table = format_study(results)
    write_atomically(out / "study.md", table + "\n")
    print(table)
    return 0


def _choose(args: argparse.Namespace) -> Study:
    """The study, or the part of it, that the arguments name."""
    study = Study(config=args.config) if args.config else read_study(Path(args.study))
    changes = {name: tuple(given) for name in ("splits", "seeds") if (given := vars(args)[name])}
    variants = dict(study.variants)
    if args.variants:
        if unknown := set(args.variants) - variants.keys():
            raise ValueError(f"{min(unknown)!r} is no variant of {args.study}: {list(variants)}")
        variants = {name: variants[name] for name in args.variants}
    if args.seeds:
        variants = {n: v.model_copy(update={"seeds": None}) for n, v in variants.items()}
    return study.model_copy(update={**changes, "variants": variants})


def _variant_config(study: Study, name: str, out: Path, overrides: Sequence[str]) -> Config:
    path = _config_file(out, name)
    write_variant(study, name, path)
    return load_config(path, overrides)


def _packing_order(configs: dict[str, Config]) -> str:
    """The order of the packed shards, which all variants share; ValueError where they differ."""
    orders = {
        name: "shuffled" if config.data.session_windows is None else "sessions"
        for name, config in configs.items()
    }
    if len(set(orders.values())) > 1:
        raise ValueError(
            f"variants read shards in different orders ({orders}); set data.session_windows for "
            "all of them or none, or make two studies"
        )
    return next(iter(orders.values()))


def _config_file(out: Path, variant: str) -> Path:
    return out / variant / "config.yaml"


def _build_data(out: Path, split: int, order: str) -> None:
    """Window, packed (in ``order``) and few-shot shards of one split, unless they are there."""
    data = out / f"split{split}" / "data"
    log = out / f"split{split}" / "data.log"
    if not (data / "few_shot/test/index.json").exists():
        # few_shot/test is finished last: without it the rest is of a build that was killed.
        place = ("--out", str(data), "--split", str(split), "--overwrite")
        run_command(log, "shards", "build", "demo", *place)
    for part in (path.name for path in (data / "windows").iterdir()):
        if not (data / "packed" / part / "index.json").exists():
            source, packed = str(data / "windows" / part), str(data / "packed" / part)
            options = ("--src", source, "--out", packed, "--order", order)
            run_command(log, "shards", "embed", *options, *TEACHERS)


def _pretrain_and_evaluate(out: Path, chain: Chain, overrides: Sequence[str]) -> Path:
    """Pretrain and evaluate, unless that is done; the path of the few-shot JSON."""
    split = out / f"split{chain.split}"
    run = split / chain.variant / f"seed{chain.seed}"
    result = run / "few_shot" / "few_shot.json"
    if result.exists():
        return result
    own = [
        f"output={run}",
        f"seed={chain.seed}",
        f"data.train={json.dumps([str(split / 'data/packed/train')])}",
        f"data.validation={json.dumps(list(map(str, split.glob('data/packed/validation'))))}",
        *overrides,
    ]
    log = run.with_suffix(".log")
    run_command(log, "pretrain", "--config", str(_config_file(out, chain.variant)), *own)
    # Another seed draws other initial weights for the scratch arm, and the same labels.
    shared = ("--finished", str(split / "few_shot.finished.jsonl"))
    run_command(log, "evaluate", "--run", str(run), "--data", str(split / "data/few_shot"), *shared)
    return result


def run_command(log: Path, *command: str) -> None:
    """Run one primus-scale command, its output appended to ``log``; ChildProcessError naming it."""
    print("running  primus-scale", *command, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run([*COMMAND, *command], stdout=stream, stderr=stream, check=False)
    if done.returncode != 0:
        message = f"primus-scale {command[0]} ended with {done.returncode}; see {log}"
        raise ChildProcessError(message)


if __name__ == "__main__":
    sys.exit(main())
