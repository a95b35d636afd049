"""The few-shot benchmark on HAPT: variants of a configuration x splits of people x seeds.

    python -m benchmarks.few_shot --study configs/studies/terms.yaml --out runs/terms
    python -m benchmarks.few_shot --config configs/few_shot_hapt.yaml --out runs/pooled

For every split of people it builds and embeds the built-in data, unless the folder of the split
holds data already; for every variant and seed it pretrains in one process and evaluates,
``--jobs`` of them at a time. It pools the runs of each variant into ``VARIANT/few_shot.json`` and
``report.html``, and writes what they come to into ``study.json`` and ``study.md``. What a killed
run has finished is not done again, down to single draws of an evaluation; evaluations of one split
share what does not depend on the pretraining.

``primus-scale study run`` does the same with Ray Tune, on a cluster too, and goes on if a run
fails. This benchmark starts no Ray, and its processes are those of the commands that users run.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from launch.study.data import packing_order, prepare_data, run_command
from primus_scale.cli import GOES_ON, answer
from primus_scale.command_parser import Parser, add_overrides
from primus_scale.config_file import load_config
from primus_scale.evaluate.command import RESULTS_FILE
from primus_scale.storage.files import check_writable
from primus_scale.study.plan import plan_trials, variant_file, write_variants
from primus_scale.study.study_file import Study, add_part, choose_part, read_study
from primus_scale.study.tables import pool_variants, write_tables
from primus_scale.study.trial import (
    FINISHED_FILE,
    TrialPlace,
    check_splits,
    place_trial,
    settings_of_place,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of the benchmark that is left; a user's error is one line and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _run_benchmark(args), GOES_ON)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks.few_shot", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", metavar="FILE", help="YAML file of variants (docs/studies.md)")
    what.add_argument("--config", metavar="FILE", help="YAML file of a run: one variant, default")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of data and results")
    add_part(parser)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    add_overrides(parser)
    return parser


def _run_benchmark(args: argparse.Namespace) -> int:
    whole = Study(config=args.config) if args.config else read_study(Path(args.study))
    study = choose_part(whole, args.variants, args.splits, args.seeds)
    if not study.evaluate:
        raise ValueError(f"{args.study} evaluates nothing; run it by primus-scale study run")
    load_config(study.config, args.overrides)  # what is wrong in a configuration shows at once
    out = Path(args.out)
    check_writable(out)
    configs = write_variants(study, out, args.overrides)
    if any(config.few_shot.task.data for config in configs.values()):
        raise ValueError(
            f"{args.study or args.config} names few_shot.task.data, which this benchmark does not "
            "read; make it a study (docs/studies.md), and use primus-scale study run"
        )
    check_splits(study, configs, out)
    order = packing_order(configs)
    trials = plan_trials(study)
    places = [place_trial(study, trial, out) for trial in trials]
    # Trials of one split share its data, so data come first; both stages use all jobs.
    with ThreadPoolExecutor(args.jobs) as jobs:
        list(jobs.map(lambda split: prepare_data(study, out, split, order, configs), study.splits))
        processes = max(1, (os.cpu_count() or 1) // args.jobs)  # of each evaluation
        evaluate = partial(_pretrain_and_evaluate, overrides=args.overrides, processes=processes)
        list(jobs.map(evaluate, places))
    results = pool_variants(out, trials)
    for name in results:
        print(f"pooled   {out / name / RESULTS_FILE}")
    print(write_tables(out, results, study.compared_with))
    return 0


def _pretrain_and_evaluate(place: TrialPlace, overrides: Sequence[str], processes: int) -> None:
    """Pretrain and evaluate, each in a process of its own, unless that is done."""
    trial, out = place.trial, place.out
    run = trial.folder(out)
    if (run / "few_shot" / RESULTS_FILE).exists():
        return
    log, config = trial.log(out), str(variant_file(out, trial.variant))
    run_command(log, "pretrain", "--config", config, *settings_of_place(place), *overrides)
    # Another seed draws other initial weights for the scratch arm, and the same labels.
    shared = ("--finished", str(out / f"split{trial.split}" / FINISHED_FILE))
    task = ("--data", f"{place.data}/few_shot", "--jobs", str(processes))
    run_command(log, "evaluate", "--run", str(run), *task, *shared)


if __name__ == "__main__":
    sys.exit(main())
