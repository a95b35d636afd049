"""Tables and pages from results that are there: of a study, of an evaluation, of several.

Nothing is run, so that a page can be drawn anew after an upgrade, or of what is done so far.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from primus_scale.evaluate.command import RESULTS_FILE, read_results, redraw_report
from primus_scale.evaluate.report import PAGE_FILE
from primus_scale.evaluate.run_folder import REPORT_FOLDER
from primus_scale.study.comparison import compare_results
from primus_scale.study.page import Shown, write_page
from primus_scale.study.plan import PLAN_FILE, Trial, planned_trials
from primus_scale.study.records import RESULTS_FOLDER, Record, read_records
from primus_scale.study.status import failed_trials
from primus_scale.study.study_file import STUDY_FILE, Study, Variant, read_study
from primus_scale.study.tables import pool_variants, write_costs, write_tables
from primus_scale.study.varied import settings_of_runs

_RUN = re.compile(r"split(-?\d+)/([^/]+)/seed(-?\d+)")


def report_study(study: Study, out: Path, trials: Sequence[Trial]) -> int:
    """Write tables and page of what is finished, and list what failed; 1 where something did."""
    found = read_records(out)
    records = {trial.id: found[trial.id] for trial in trials if trial.id in found}
    failed = {
        trial: error for trial, error in failed_trials(out, trials).items() if trial not in records
    }
    # benchmarks.few_shot writes no records.
    done = [t for t in trials if (t.id in records if found else _results_of(t, out).is_file())]
    if study.evaluate:
        _check_answers(out, done, records)
    pooled = pool_variants(out, done if study.evaluate else [])
    write_costs(out, records)
    reference = study.compared_with
    print(write_tables(out, pooled, reference, failed), flush=True)
    settings = settings_of_runs(study, out, done)
    shown = Shown(study.name, len(done), pooled, records, settings, failed, reference)
    drawn = False
    try:
        print(f"page     {write_page(out, shown)}")
        drawn = True
    except ValueError as error:  # tables and results are written
        print(error, file=sys.stderr)
    for trial, reason in failed.items():
        print(f"failed   {trial}: {reason}", file=sys.stderr)
    return 0 if drawn and not failed else 1


def _check_answers(out: Path, trials: Sequence[Trial], records: Mapping[str, Record]) -> None:
    """ValueError where a trial's answers give other accuracies than its results file has."""
    for trial in trials:
        record, path = records.get(trial.id), _results_of(trial, out)
        if record is None or read_results(path, checked=False)["few_shot"] == record["few_shot"]:
            continue
        stored = out / RESULTS_FOLDER / trial.variant / record["revision"]
        raise ValueError(
            f"{path} has other accuracies than the results of trial {trial.id} in {stored}: one "
            f"was edited, or the run was evaluated anew; delete {stored}, and primus-scale study "
            "run does this trial's evaluation again"
        )


def rebuild_report(places: Sequence[Path], out: Path | None = None) -> None:
    """Write the report of a study's folder, or that of results: of one evaluation, or several.

    places: folders, or files few_shot.json. Several are pooled where they are of one task and
    protocol, and compared where they are not. out: the folder of the report; by default beside
    the results, but several need one. FileNotFoundError or ValueError naming the file that is
    missing or of another schema.
    """
    if len(places) == 1 and _is_study(places[0]):
        if out is not None:
            raise ValueError(f"{places[0]} is a study's folder: its report is in it; omit --out")
        study, trials = study_in(places[0])
        report_study(study, places[0], trials)
        return
    files = [_results_file(place) for place in places]
    if len(files) == 1:
        folder = out or files[0].parent
        redraw_report(files[0], folder)
    elif out is None:
        raise ValueError("several results make a new report; name its folder (--out DIR)")
    else:
        folder = out
        compare_results({str(file): read_results(file) for file in files}, folder)
    print(f"report   {folder / PAGE_FILE}")


def _is_study(place: Path) -> bool:
    return (place / PLAN_FILE).is_file() or bool(_runs_in(place))


def study_in(out: Path) -> tuple[Study, list[Trial]]:
    """The study in a folder; of an older one its plan, or its runs, tell what it was."""
    planned = (out / PLAN_FILE).is_file()
    trials = planned_trials(out / PLAN_FILE) if planned else _runs_in(out)
    if (out / STUDY_FILE).is_file():
        return read_study(out / STUDY_FILE), trials
    variants = {trial.variant: Variant() for trial in trials}
    name = out.resolve().name
    return Study(config="", name=name, variants=variants or {"default": Variant()}), trials


def _runs_in(out: Path) -> list[Trial]:
    """The trials of a study without a plan, by the folders of its evaluated runs."""
    found = []
    for path in sorted(out.glob(f"split*/*/seed*/few_shot/{RESULTS_FILE}")):
        names = _RUN.fullmatch(path.parents[1].relative_to(out).as_posix())
        if names:
            found.append(Trial(names[2], int(names[1]), int(names[3])))
    return found


def _results_of(trial: Trial, out: Path) -> Path:
    return trial.folder(out) / REPORT_FOLDER / RESULTS_FILE


def _results_file(place: Path) -> Path:
    """The results of an evaluation, by their path, its folder, or that of its run."""
    if not place.is_dir():
        return place
    if _is_study(place):
        raise ValueError(
            f"{place} is a study's folder; report it alone, or give VARIANT/{RESULTS_FILE} of it"
        )
    for path in (place / RESULTS_FILE, place / REPORT_FOLDER / RESULTS_FILE):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{place} holds neither {RESULTS_FILE} nor {PLAN_FILE}; give the folder of a study or of "
        "an evaluation, or the files of several"
    )
