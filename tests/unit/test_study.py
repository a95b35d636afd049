"""Studies: the file that a user writes, and the plan of its trials."""

import json
from pathlib import Path
from typing import Any

import pytest

from launch.study.data import build_command
from primus_scale.cli import build_parser
from primus_scale.config_file import load_config
from primus_scale.study.plan import (
    COLUMNS,
    data_of,
    plan_trials,
    planned_config,
    planned_trials,
    read_plan,
    write_variants,
)
from primus_scale.study.records import read_records, write_record
from primus_scale.study.status import read_status
from primus_scale.study.study_file import Study, choose_part, read_study, write_study
from primus_scale.study.trial import check_splits
from shards.demo.hapt import PEOPLE, named_split, people_split
from tests.study_factory import planned, record, small_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "configs/studies").glob("*.yaml"))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path)


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
        ("config: a.yaml\ndata: x\ntest_people: {1: [3]}\n", "are of the built-in data"),
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


def test_folds_of_development_people_test_nobody_of_the_splits_1_to_3(tmp_path: Path) -> None:
    study = read_study(ROOT / "configs/studies/development.yaml")
    folds = [set(study.test_people[split]) for split in study.splits]
    assert [len(fold) for fold in folds] == [5, 5]
    assert not folds[0] & folds[1]
    never_tested = set(PEOPLE).difference(*(people_split(split)[1] for split in (1, 2, 3)))
    assert folds[0] | folds[1] == never_tested
    for split, fold in zip(study.splits, folds, strict=True):
        args = build_parser().parse_args(build_command(study, tmp_path, split))
        assert (args.split, args.out, args.overwrite) == (split, str(tmp_path), True)
        label_people, tested = named_split(args.test_people)
        assert set(tested) == fold
        assert len(label_people) == 25


def test_a_split_without_its_test_people_is_refused_before_a_trial(tmp_path: Path) -> None:
    study = small_study(tmp_path).model_copy(update={"test_people": {1: (3, 4), 2: (5,)}})
    with pytest.raises(ValueError, match=r"test_people has no split 3; choose of 1, 2, or add who"):
        choose_part(study, splits=[2, 3])
    write_study(choose_part(study, splits=[2]), tmp_path)
    assert read_study(tmp_path / "study.yaml").test_people == study.test_people


def test_a_split_draws_its_test_people_where_a_study_names_none(study: Study) -> None:
    args = build_parser().parse_args(build_command(study, Path("data"), 2))
    assert (args.split, args.test_people) == (2, None)


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
