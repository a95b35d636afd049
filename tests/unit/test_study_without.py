"""Variants of a study that are pretrained without some placements, data sets or people."""

import re
from pathlib import Path

import numpy as np
import pytest

from launch.study.data import prepare_data
from primus_scale.config import Config
from primus_scale.config_file import dump_config
from primus_scale.data.index import read_index
from primus_scale.data.reader import load_windows
from primus_scale.monitor.provenance import CONFIG_FILE
from primus_scale.study.plan import plan_trials, read_plan, write_plan, write_variants
from primus_scale.study.study_file import Study, read_study, write_study
from primus_scale.study.trial import place_trial, trial_config
from primus_scale.study.varied import Point, settings_of_runs, single_settings
from shards.write.verify import verify
from tests.shard_factory import make_blocks, make_windows, write_packed

PEOPLE = "{person: [one/person-0, person-2], placement: chest}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study on 60 windows of data set one, packed with 40 of two; tasks lie elsewhere."""
    blocks = [
        *make_blocks(make_windows(60, dataset="one")),
        *make_blocks(make_windows(40, seed=1, dataset="two")),
    ]
    notes = {"datasets": {"one": "made up", "two": "drawn"}}
    write_packed(str(tmp_path / "data/packed/train"), blocks, sessions=True, provenance=notes)
    (tmp_path / "run.yaml").write_text("name: a\noutput: a\ndata: {train: [x]}\n")
    path = tmp_path / "study.yaml"
    path.write_text(
        f"config: run.yaml\nsplits: [1]\nseeds: [0]\ndata: {tmp_path}/data\nevaluate: false\n"
        "variants:\n  all: {}\n"
        "  no_wrist: {pretrain_without: {placement: [left wrist]}}\n"
        "  only_two: {pretrain_without: {dataset: [one]}}\n"
        f"  no_people: {{pretrain_without: {PEOPLE}}}\n"
    )
    return path


def prepared(study: Study, out: Path) -> dict[str, Config]:
    """The data of split 1, and the configuration of the run of each variant."""
    prepare_data(study, out, 1, "sessions", write_variants(study, out))
    return {t.variant: trial_config(place_trial(study, t, out)) for t in plan_trials(study)}


def test_a_variant_is_pretrained_on_the_rows_that_it_does_not_leave_out(
    file: Path, tmp_path: Path
) -> None:
    study, out = read_study(file), tmp_path / "out"
    trains = {name: config.data.train[0] for name, config in prepared(study, out).items()}
    assert trains["all"] == str(tmp_path / "data/packed/train")
    whole = load_windows(trains["all"])
    wanted = {
        "all": [True] * 100,
        "no_wrist": [meta.placement == "chest" for meta in whole.metas],
        "only_two": [meta.dataset == "two" for meta in whole.metas],
        "no_people": [
            meta.placement != "chest"
            and meta.person != "person-2"
            and (meta.dataset, meta.person) != ("one", "person-0")
            for meta in whole.metas
        ],
    }
    assert [sum(kept) for kept in wanted.values()] == [100, 50, 40, 30]
    for name, kept in wanted.items():
        part, rows = load_windows(trains[name]), np.flatnonzero(kept)
        assert [meta.uid for meta in part.metas] == [whole.metas[row].uid for row in rows]
        assert np.array_equal(part.imu, whole.imu[rows])
        for modality, values in part.batch.embeddings.items():
            assert np.array_equal(values, whole.batch.embeddings[modality][rows])
        assert part.shard_set.by_sessions
        assert verify(trains[name]).ok
    provenance = read_index(trains["only_two"]).provenance
    assert provenance["datasets"] == {"two": "drawn"}
    assert provenance["people"] == {"two": ["person-0", "person-1"]}
    assert provenance["without"] == {"dataset": ["one"]}

    made = {path: path.stat().st_mtime_ns for path in out.glob("split1/*/packed/train/*")}
    assert len(made) == 6, "an index and a shard of each"
    (out / "split1/no_wrist/packed/train/index.json").unlink()  # as a kill leaves it
    prepared(study, out)
    again = {path for path, before in made.items() if path.stat().st_mtime_ns != before}
    assert {path.parts[-4] for path in again} == {"no_wrist"}
    assert verify(trains["no_wrist"]).ok


def test_what_is_left_out_is_in_plan_file_and_charts(file: Path, tmp_path: Path) -> None:
    study, out = read_study(file), tmp_path / "out"
    configs, trials = write_variants(study, out), plan_trials(study)
    write_plan(study, trials, configs, out)
    rows = read_plan(out / "plan.csv")
    assert rows[1]["settings"] == '{"pretrain_without": {"placement": ["left wrist"]}}'
    assert len({row["config"] for row in rows}) == len(rows)
    write_study(study, out)
    assert read_study(out / "study.yaml").variants == study.variants

    for trial in trials:
        trial.folder(out).mkdir(parents=True)
        run = dump_config(trial_config(place_trial(study, trial, out)))
        (trial.folder(out) / CONFIG_FILE).write_text(run)
    settings = settings_of_runs(study, out, trials)
    assert single_settings(settings, "all") == {
        "pretrain_without.placement": [Point(None, "all"), Point("left wrist", "no_wrist")],
        "pretrain_without.dataset": [Point(None, "all"), Point("one", "only_two")],
    }

    file.write_text(file.read_text().replace("left wrist", "chest"))
    with pytest.raises(ValueError, match=r"no_wrist-split1-seed0 was planned with other settings"):
        write_plan(read_study(file), trials, configs, out)


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (
            "{placement: [chst]}",
            "no window is of placement 'chst'; the nearest placement is 'chest'",
        ),
        ("{person: [one/person-8]}", "no window is of person 'one/person-8'; the nearest person"),
        ("{dataset: [one, two]}", "no window is left; leave out fewer of dataset"),
    ],
)
def test_a_name_that_no_window_has_is_refused(
    file: Path, tmp_path: Path, without: str, said: str
) -> None:
    file.write_text(file.read_text().replace(PEOPLE, without))
    said = re.escape(f"study study: variants.no_people.pretrain_without: {said}")
    with pytest.raises(ValueError, match=said):
        prepared(read_study(file), tmp_path / "out")
