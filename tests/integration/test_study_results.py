"""Studies: the results of their trials, how far they are, tables and page."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from primus_scale.cli import main
from primus_scale.config_file import dump_config, load_config
from primus_scale.distributed.run_lock import RunLock
from primus_scale.evaluate import write_results
from primus_scale.study.page import Shown, write_page
from primus_scale.study.plan import (
    Trial,
    plan_trials,
)
from primus_scale.study.records import read_records, write_all, write_record
from primus_scale.study.report import study_in
from primus_scale.study.status import failed_trials, format_status, read_status
from primus_scale.study.study_file import Study, read_study, write_study
from primus_scale.study.tables import compare_variants, format_cost, format_failed
from tests.made_up import made_up
from tests.study_factory import planned, record, small_study

ROOT = Path(__file__).parents[2]
WHOLE = {
    **{"schema": 1, "trial": "a-split1-seed0", "variant": "a", "split": 1, "seed": 0},
    **{"revision": "b", "task": "c", "few_shot": {}, "cost": {}},
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path)


def test_results_are_read_as_they_were_written(study: Study, tmp_path: Path) -> None:
    trials = plan_trials(study)
    for trial in trials[:2]:
        write_record(tmp_path, record(trial))
    path = tmp_path / "results/plain/0123456789ab/hapt-split1.json"
    assert json.loads(path.read_text())["schema"] == 1
    records = read_records(tmp_path)
    assert list(records) == [trial.id for trial in trials[:2]]
    write_all(tmp_path, records)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(row["trial"], row["arm"], row["accuracy"]) for row in rows[:2]] == [
        ("plain-split1-seed0", "pretrained", "0.8"),
        ("plain-split1-seed0", "features", "0.8"),
    ]
    assert rows[0]["peak_memory_mb"] == "900.0"
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": 2}', "schema is 2, this program reads 1"),
        ("[]", "schema is None"),
        ('{"schema": 1, "trial": "a"}', "field variant is missing"),
        (WHOLE | {"few_shot": []}, "field few_shot is no dict"),
        (WHOLE | {"cost": None}, "field cost is no dict"),
        (WHOLE | {"few_shot": {"1": {"x": 0.8}}}, r"few_shot\.1\.x is no accuracy"),
        (WHOLE | {"few_shot": {"1": {"x": {"mean": "0.8"}}}}, r"few_shot\.1\.x is no accuracy"),
        (WHOLE | {"seed": 1}, "field trial is a-split1-seed0, and not a-split1-seed1"),
        (WHOLE | {"revision": "d"}, "its content is that of a/d/c"),
        ('{"schema": 1', "results/a/b/c.json"),
    ],
)
def test_results_that_no_trial_wrote_are_refused(
    tmp_path: Path, content: str | dict[str, Any], said: str
) -> None:
    content = content if isinstance(content, str) else json.dumps(content)
    path = tmp_path / "results/a/b/c.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_records(tmp_path)
    assert str(path) in str(caught.value)
    assert "delete" in str(caught.value)
    assert path.read_text() == content


def test_status_tells_of_every_trial(study: Study, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no study's folder"):
        read_status(tmp_path)
    finished, failed, stopped, running, *waiting = planned(study, tmp_path)
    write_record(tmp_path, record(finished))
    for trial in (failed, stopped, running):
        trial.folder(tmp_path).mkdir(parents=True)
    failed.failure(tmp_path).write_text("no such luck\n")
    (stopped.folder(tmp_path) / "metrics.jsonl").write_text('{"step": 20, "loss/total": 1.0}\n')
    (stopped.folder(tmp_path) / "config.yaml").write_text("train: {steps: 30}\n")
    lock = RunLock(running.folder(tmp_path))
    lock.acquire()
    try:
        lines = format_status(read_status(tmp_path)).splitlines()
    finally:
        lock.release()
    assert [line.split()[:2] for line in lines[:-1]] == [
        [finished.id, "finished"],
        [failed.id, "failed"],
        [stopped.id, "stopped"],
        [running.id, "running"],
        *([trial.id, "waiting"] for trial in waiting),
    ]
    assert "80.0 [70.0, 90.0] % at k = 1" in lines[0]
    assert "no such luck" in lines[1]
    assert "step 20 of 30" in lines[2]
    assert lines[-1] == "6 trials: 1 finished, 1 running, 1 stopped, 1 failed, 2 waiting"
    assert failed_trials(tmp_path, plan_trials(study)) == {failed.id: "no such luck"}


def test_tables_and_page_show_cost_and_failures(study: Study, tmp_path: Path) -> None:
    records = {trial.id: record(trial) for trial in plan_trials(study)[:2]}
    failed = {"warm-split2-seed0": "out of | luck <b>"}
    assert format_failed(failed).splitlines()[-1] == "| warm-split2-seed0 | out of / luck <b> |"
    assert format_cost(records).splitlines()[-1] == "| plain | 10.0 | 2.0 | 400.0 | 900.0 |"
    shown = Shown("example", 2, {}, records, {}, failed, "plain")
    page = write_page(tmp_path, shown).read_text()
    assert page.startswith("<!doctype")
    assert "a CPU, 2 cores" in page
    assert "out of | luck &lt;b&gt;" in page
    assert page.count("<img ") == 1  # cost


def finish(study: Study, trial: Trial, out: Path, right: int) -> None:
    """Leave in ``out`` what a trial leaves that is right on so many of 10 windows."""
    run = trial.folder(out)
    results = made_up({"pretrained": right, "features": 5}, ("1",), splits=(trial.split,))
    write_results(results | {"runs": [{**results["runs"][0], "pretraining_seed": trial.seed}]}, run)
    (run / "few_shot").mkdir()
    (run / "few_shot.json").rename(run / "few_shot/few_shot.json")
    config = load_config(out / trial.variant / "config.yaml")
    (run / "config.yaml").write_text(dump_config(config))
    held = {"revision": f"{trial.variant}{trial.seed}", "few_shot": results["few_shot"]}
    write_record(out, record(trial, **held))


def test_a_report_is_written_anew_from_what_lies_in_a_studys_folder(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    study = study.model_copy(update={"splits": (1,), "name": "example"})
    trials = planned(study, out)
    write_study(study, out)
    for trial, right in zip(trials[:2], (6, 4), strict=True):
        finish(study, trial, out, right)
    trials[2].failure(out).write_text("out of luck\n")
    assert main(["report", str(out)]) == 0
    assert "failed   warm-split1-seed1: out of luck" in capsys.readouterr().err
    page = (out / "report.html").read_text()
    assert "<h1>Study example</h1>" in page
    assert "Difference to plain" in page
    assert "Sensitivity to single settings" in page  # train.batch
    assert json.loads((out / "study.json").read_text())["warm"]["difference"]["1"]["mean"] < 0

    assert study_in(out) == (read_study(out / "study.yaml"), trials)
    (out / "plan.csv").unlink()  # as benchmarks.few_shot leaves a folder
    (out / "study.yaml").unlink()
    found, done = study_in(out)
    assert (found.name, found.compared_with, done) == ("out", "plain", trials[:2])

    bad = trials[0].folder(out) / "few_shot/few_shot.json"
    answers = json.loads(bad.read_text())
    answers["few_shot"]["1"]["pretrained"]["mean"] += 0.1
    bad.write_text(json.dumps(answers))
    assert main(["report", str(out)]) == 1
    assert f"{bad} has other accuracies than the results of trial" in capsys.readouterr().err

    bad.write_text('{"schema": 1}')
    assert main(["report", str(out)]) == 1
    assert f"{bad}: schema is 1, this program reads 2" in capsys.readouterr().err


def test_a_report_of_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = made_up({"pretrained": 6, "features": 5}, ("1",))
    run = tmp_path / "run/few_shot"
    write_results(results, run)
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (run / "report.html").read_text() == page
    (tmp_path / "damaged.json").write_text(json.dumps({**results, "records": None}))
    (tmp_path / "trial.json").write_text('{"schema": 1, "trial": "a", "run": "split1/a/seed0"}')
    for places, said in (
        ((run, tmp_path / "damaged.json"), "name its folder (--out DIR)"),
        ((tmp_path,), "holds neither few_shot.json nor plan.csv"),
        ((tmp_path / "damaged.json",), "damaged.json: field records is missing"),
        ((tmp_path / "trial.json",), "few_shot/few_shot.json of its run (split1/a/seed0 in"),
        ((tmp_path / "nothing.json",), "nothing.json is missing"),
    ):
        assert main(["report", *map(str, places)]) == 1
        assert said in capsys.readouterr().err


def test_variants_are_compared_on_the_same_people_and_labels() -> None:
    """Against the loop: each person's share of right answers, averaged over draws, by windows."""
    results = json.loads((ROOT / "docs/figures/few_shot_hapt.json").read_text())
    swapped = {"pretrained": "features", "features": "pretrained"}
    records = [{**one, "arm": swapped.get(one["arm"], one["arm"])} for one in results["records"]]
    twin = {**results, "records": [one for one in records if one["draw"] < 4]}
    found = compare_variants({"twin": twin, "plain": results}, "plain")
    assert list(found) == ["twin"]
    for k, gain in found["twin"].items():
        right, windows = {"pretrained": 0.0, "features": 0.0}, 0.0
        for one in results["records"]:
            if one["k"] == k and one["arm"] in right and one["draw"] < 4:
                right[one["arm"]] += sum(p["correct"] for p in one["people"].values())
                if one["arm"] == "features":
                    windows += sum(p["total"] for p in one["people"].values())
        assert gain["mean"] == pytest.approx((right["features"] - right["pretrained"]) / windows)
        assert gain["low"] < gain["mean"] < gain["high"]
        assert gain["draws"] == 12
    assert compare_variants({"twin": twin}, "plain") == {}
