"""A study with Ray Tune: killed in mid-trial and started again it ends as an undisturbed one."""

import json
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from launch.study.tuning import _is_only_ours, _records_match
from primus_scale.distributed.run_lock import is_held
from primus_scale.study.plan import Trial, plan_trials, write_variants
from primus_scale.study.records import read_records
from primus_scale.study.status import failed_trials, read_status
from primus_scale.study.study_file import Study, read_study
from primus_scale.study.tables import pool_variants, write_tables
from primus_scale.study.trial import finish_trial, place_trial, trial_config
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    last_step,
    newest_checkpoint,
    started,
    steps,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)
from tests.shard_factory import make_windows, write_windows

STEPS = 60
OVERRIDES = (
    f"train.steps={STEPS}",
    "train.checkpoint_every=5",
    "train.validate_every=40",
    "train.pictures_every=1000",
    "few_shot={k: [1, 2], draws: 2, arms: [pretrained, features], threads: 1}",
)
FINISHED, KILLED, FAILING = (Trial(name, 0, 0) for name in ("finished", "killed", "failing"))
PROBLEM = "train.batch is 4096, but data.train holds 48 windows, and a batch holds none twice"


def write_study(folder: Path) -> Path:
    """Random shards, a task of two classes, and a study of three variants, of which one fails."""
    data = folder / "data"
    write_shards(data / "packed/train")
    write_shards(data / "packed/validation", windows=16, seed=1)
    for side, seed in (("label", 5), ("test", 6)):
        windows = [
            replace(window, meta=replace(window.meta, label=("lie", "sit")[n % 2], person=person))
            for n, window in enumerate(make_windows(36, seed=seed, frames=0, samples=250))
            for person in [f"{side}-{n // 6}"]
        ]
        write_windows(str(data / "few_shot" / side), windows)
    write_config(tiny_config(Path("unused"), "unused", *OVERRIDES), folder / "run.yaml")
    variants = {
        FINISHED.variant: {"settings": {"encoder": {"ss_dim": 24}}},
        KILLED.variant: {},
        FAILING.variant: {"settings": {"train": {"batch": 4096}}},
    }
    study = {"config": "run.yaml", "splits": [0], "seeds": [0], "data": str(data)}
    (folder / "study.yaml").write_text(
        yaml.safe_dump({**study, "variants": variants}, sort_keys=False)
    )
    return folder / "study.yaml"


def do_trial(study: Study, trial: Trial, out: Path) -> None:
    """The trial in this process, without Ray."""
    place = place_trial(study, trial, out)
    config = trial_config(place)
    assert pretrain(config) == 0
    finish_trial(place, config)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder."""
    found = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    return {str(path): (seen.st_size, seen.st_mtime_ns) for path, seen in found}


def test_a_study_that_was_killed_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    file, out, alone = write_study(tmp_path), tmp_path / "out", tmp_path / "alone"
    study = read_study(file)
    write_variants(study, out)
    do_trial(study, FINISHED, out)
    shutil.copytree(out, alone)
    before = contents(FINISHED.folder(out))
    command = (sys.executable, "-m", "primus_scale.cli", "study", "run", str(file))
    arguments = ("--out", str(out), "--jobs", "1")

    run = KILLED.folder(out)
    with started(*command, *arguments) as driver:
        wait_until(lambda: newest_checkpoint(run), timeout_s=300)  # Ray is slow to start
        assert [one.state for one in read_status(out)][:2] == ["finished", "running"]
        driver.kill()
        driver.wait()
        wait_until(lambda: not is_held(run))
    assert 0 < newest_checkpoint(run) <= last_step(run) < STEPS
    assert KILLED.id not in read_records(out)
    made = (out / "tune.json").stat().st_mtime_ns  # it is written where Tune begins anew

    with started(*command, *arguments) as driver:
        printed, _ = driver.communicate(timeout=300)
        assert driver.returncode == 1, printed
    assert "3 trials, 2 to do" in printed
    assert f"failed   {FAILING.id}: {PROBLEM}" in printed
    assert f"{KILLED.id}: step {STEPS}/{STEPS} | loss" in printed
    assert (out / "tune.json").stat().st_mtime_ns == made, "Tune's records were not read"
    assert len([*out.glob("tune/experiment_state*.json")]) == 2  # of both starts
    assert steps(run) == [*range(1, STEPS + 1)]
    assert contents(FINISHED.folder(out)) == before, "a finished trial ran again"
    assert [one.state for one in read_status(out)] == ["finished", "finished", "failed"]

    do_trial(study, KILLED, alone)
    trials = plan_trials(study)[:2]
    failed = failed_trials(out, [FAILING])
    assert failed[FAILING.id].startswith(PROBLEM)
    pooled = pool_variants(alone, trials)
    undisturbed = write_tables(alone, pooled, FINISHED.variant, failed)
    assert (out / "study.md").read_text() == undisturbed + "\n"
    tables = [json.loads((folder / "study.json").read_text()) for folder in (out, alone)]
    assert tables[0] == tables[1]
    killed, twin = (read_records(folder)[KILLED.id] for folder in (out, alone))
    assert killed["revision"] == twin["revision"], "other weights"
    assert killed["cost"]["peak_memory_mb"] > 100
    assert "<img" in (out / "report.html").read_text()
    assert read_study(out / "study.yaml").variants == study.variants


def test_records_of_ray_are_read_where_they_fit_and_nobody_else_can_write_them(
    tmp_path: Path,
) -> None:
    assert not _records_match(tmp_path, ["a"], 1)
    (tmp_path / "tune.json").write_text('{"trials": ["a", "b"], "jobs": 1}')
    assert _records_match(tmp_path, ["a"], 1)
    assert not _records_match(tmp_path, ["a"], 2)
    assert not _records_match(tmp_path, ["c"], 1)
    (tmp_path / "tune.json").write_text('["a"]')
    assert not _records_match(tmp_path, ["a"], 1)

    folder = tmp_path / "tune"
    folder.mkdir(mode=0o755)
    for name in ("tuner.pkl", "experiment_state-1.json"):
        (folder / name).touch(mode=0o644)
    assert _is_only_ours(folder)
    (folder / "experiment_state-1.json").chmod(0o666)
    assert not _is_only_ours(folder)
    (folder / "experiment_state-1.json").chmod(0o644)
    folder.chmod(stat.S_IRWXU | stat.S_IWOTH)
    assert not _is_only_ours(folder)
