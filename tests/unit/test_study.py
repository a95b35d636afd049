"""Studies: their plan, the results of their trials, how far they are, tables and page."""

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
    COLUMNS,
    Trial,
    data_of,
    plan_trials,
    planned_config,
    planned_trials,
    read_plan,
    write_plan,
    write_variants,
)
from primus_scale.study.records import read_records, write_all, write_record
from primus_scale.study.report import study_in
from primus_scale.study.status import failed_trials, format_status, read_status
from primus_scale.study.study_file import Study, choose_part, read_study, write_study
from primus_scale.study.tables import compare_variants, format_cost, format_failed
from primus_scale.study.trial import check_splits
from tests.made_up import made_up

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "configs/studies").glob("*.yaml"))
WHOLE = {
    **{"schema": 1, "trial": "a-split1-seed0", "variant": "a", "split": 1, "seed": 0},
    **{"revision": "b", "task": "c", "few_shot": {}, "cost": {}},
}
COST = {"pretraining_s": 10.0, "evaluation_s": 2.0, "windows_per_s": 400.0, "peak_memory_mb": 900.0}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "run.yaml").write_text("name: a\noutput: a\ndata: {train: [x]}\n")
    (tmp_path / "study.yaml").write_text(
        "config: run.yaml\nsplits: [1, 2]\nseeds: [0]\nsettings: {train: {steps: 30}}\n"
        "variants:\n  plain: {}\n  warm: {seeds: [0, 1], settings: {train: {batch: 64}}}\n"
    )
    return read_study(tmp_path / "study.yaml")


def planned(study: Study, out: Path, *overrides: str) -> list[Trial]:
    trials = plan_trials(study)
    write_plan(study, trials, write_variants(study, out, overrides), out)
    return trials


def record(trial: Trial, **changes: Any) -> dict[str, Any]:
    interval = {"mean": 0.8, "low": 0.7, "high": 0.9, "people": 3, "draws": 2}
    made = {
        "trial": trial.id,
        **trial._asdict(),
        "revision": "0123456789ab",
        "task": f"hapt-split{trial.split}",
        "few_shot": {"1": {"pretrained": interval, "features": interval}},
        "cost": COST,
        "hardware": {"processor": "a CPU", "cores": 2, "gpus": []},
    }
    return {**made, **changes}


def test_the_plan_has_a_row_for_each_variant_split_and_seed(study: Study, tmp_path: Path) -> None:
    trials = planned(study, tmp_path / "out")
    assert [trial.id for trial in trials] == [
        *("plain-split1-seed0", "plain-split2-seed0", "warm-split1-seed0", "warm-split2-seed0"),
        *("warm-split1-seed1", "warm-split2-seed1"),
    ]
    rows = read_plan(tmp_path / "out/plan.csv")
    assert json.loads(rows[2]["settings"]) == {"train": {"steps": 30, "batch": 64}}
    assert rows[0]["config"] != rows[2]["config"] == rows[3]["config"]
    assert planned_trials(tmp_path / "out/plan.csv") == trials
    assert trials[2].folder(tmp_path) == tmp_path / "split1/warm/seed0"


def test_a_planned_trial_keeps_its_settings(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned(study, out)
    planned(study.model_copy(update={"splits": (1, 2, 3)}), out, "launch.workers=2")  # more trials
    before = (out / "plan.csv").read_bytes()
    with pytest.raises(ValueError, match=r"plan\.csv: trial plain-split1-seed0 was planned with"):
        planned(study, out, "optimizer.lr=0.5")
    base = tmp_path / "run.yaml"
    base.write_text(base.read_text() + "seed: 3\n")
    with pytest.raises(ValueError, match=r"or another base configuration .*choose another --out"):
        planned(study, out)
    assert (out / "plan.csv").read_bytes() == before


def test_a_finished_trial_keeps_its_settings_where_a_later_plan_lacked_it(
    study: Study, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    trial = planned(study, out)[0]
    write_record(out, record(trial, config=planned_config(out, trial)))
    planned(choose_part(study, ["warm"]), out)
    assert planned_config(out, trial) is None
    changed = study.model_copy(update={"settings": {"train": {"steps": 99}}})
    with pytest.raises(ValueError, match="plain-split1-seed0 was finished with other settings"):
        planned(choose_part(changed, ["plain"]), out)
    planned(study, out)


def test_two_results_of_one_trial_are_refused(study: Study, tmp_path: Path) -> None:
    trial = plan_trials(study)[0]
    paths = [write_record(tmp_path, record(trial, revision=name)) for name in ("a", "b")]
    with pytest.raises(ValueError, match="are both of trial plain-split1-seed0; delete") as caught:
        read_records(tmp_path)
    assert all(str(path) in str(caught.value) for path in paths)


@pytest.mark.parametrize(
    "content", ["", "garbage", "\xff", "trial,variant\n", ",".join(COLUMNS) + "\n"]
)
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=r"plan\.csv.*delete it and start the study again"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    ("data", "task", "refused"),
    [
        (None, {}, False),
        ("packed{split}", {}, False),
        ("packed", {}, True),
        ("packed", {"data": ["x"], "test": 0.3}, False),
        ("packed", {"data": ["x"], "test": 0.3, "seed": 1}, True),
        ("packed", {"data": ["x"], "test": ["anna"]}, True),
        ("packed{split}", {"data": ["x"], "test": ["anna"]}, False),
        ("packed{split}", {"data": ["x"], "test": ["anna"], "seed": 1}, True),
        ("packed{split}", {"data": ["{data}/x"], "test": ["anna"]}, False),
    ],
)
def test_splits_that_are_one_task_are_refused_before_a_trial(
    study: Study, tmp_path: Path, data: str | None, task: dict[str, Any], refused: bool
) -> None:
    settings = {"few_shot": {"task": task}}
    study = study.model_copy(update={"data": data, "settings": settings})
    configs = write_variants(study, tmp_path)
    if refused:
        with pytest.raises(ValueError, match="splits 1 and 2 of variant plain are one task"):
            check_splits(study, configs, tmp_path)
    else:
        check_splits(study, configs, tmp_path)
    check_splits(study.model_copy(update={"splits": (1,)}), configs, tmp_path)
    check_splits(study.model_copy(update={"evaluate": False}), configs, tmp_path)


def test_a_part_of_a_study(study: Study) -> None:
    part = choose_part(study, ["warm"], splits=[4], seeds=[7])
    assert [trial.id for trial in plan_trials(part)] == ["warm-split4-seed7"]
    with pytest.raises(
        ValueError, match=r"'wram' is no variant of the study; the nearest .*'warm'"
    ):
        choose_part(study, ["wram"])
    with pytest.raises(ValueError, match="--seeds names 7 twice"):
        choose_part(study, seeds=[7, 7])


def test_data_are_the_studys_or_are_built_in_its_folder(study: Study) -> None:
    assert data_of(study, Path("out"), 3) == "out/split3/data"
    other = study.model_copy(update={"data": "s3://bucket/hapt{split}/"})
    assert data_of(other, Path("out"), 3) == "s3://bucket/hapt3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: a.yaml\nvariants: {a: {setings: {}}}\n", r"variants\.a\.setings"),
        (
            "config: a.yaml\nvariants: {a: {pretrain_without: {placment: [waist]}}}\n",
            r"the nearest known key is 'variants\.a\.pretrain_without\.placement'",
        ),
        ("config: a.yaml\nvariants: {results: {}}\n", "'results' is the name of another folder"),
        ("config: a.yaml\nvariants: {split1: {}}\n", "'split1' is the name of another folder"),
        ("config: a.yaml\nreference: b\nvariants: {a: {}}\n", "reference: 'b' is no variant of it"),
        ("config: a.yaml\nvariants: {a/b: {}}\n", "'a/b' is not a plain file name"),
        ("config: a.yaml\nsplits: [1, 1]\n", "splits names 1 twice"),
        ("config: a.yaml\nvariants: {a: {seeds: []}}\n", r"variants\.a\.seeds is empty"),
        ("- 1\n", "no mapping"),
        ("a: [", "no valid YAML|not valid YAML"),
    ],
)
def test_a_mistake_in_a_study_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"study\.yaml.*({said})"):
        read_study(path)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_of_a_shipped_study_is_valid(path: Path, tmp_path: Path) -> None:
    study = read_study(path)
    configs = write_variants(study, tmp_path)
    dumped = {
        name: config.model_dump_json(exclude={"name"})
        + study.variants[name].pretrain_without.model_dump_json()
        for name, config in configs.items()
    }
    assert len(set(dumped.values())) >= len(configs) - (path.stem == "terms"), "two are equal"


def test_the_ablation_has_every_subset_of_the_terms() -> None:
    study = read_study(ROOT / "configs/studies/ablation.yaml")
    base = dict(load_config(study.config).objective.weights)
    groups = {"near": ["imu_near"], "self": ["imu_imu"], "multimodal": ["imu_video", "imu_text"]}
    groups["neighbour"] = [name for name in base if name.startswith("neighbour")]
    subsets = set()
    for name in study.variants:
        weights = base | study.settings_of(name)["objective"]["weights"]
        on = {group for group, terms in groups.items() if all(weights[t] > 0 for t in terms)}
        off = {group for group, terms in groups.items() if all(weights[t] == 0 for t in terms)}
        assert on | off == set(groups), f"{name} splits a group"
        assert on == set(name.split("_")), f"{name} has {on}"
        subsets.add(frozenset(on))
    assert len(subsets) == len(study.variants) == 2**4 - 1


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
