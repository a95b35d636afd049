"""Every command of ``primus-scale`` after the shards, on tiny data, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from primus_scale import load_encoder
from primus_scale.cli import main
from primus_scale.sample import Window, WindowMeta, window_uid
from shards.write.writer import WindowShardWriter
from tests.integration.tiny import (
    RATE_HZ,
    SAMPLES,
    tiny_config,
    write_config,
    write_shards,
)
from tests.permissions import bound_by_permissions
from tests.unit.test_published import make_checkpoint, make_weights

CLASSES = ("walking", "sitting")
SETTINGS = ("k=[1]", "draws=2", "steps=1", "lrs=[0.001]")


def write_task(folder: Path) -> str:
    """Labelled windows of four people, and of two others to test on."""
    rng = np.random.default_rng(0)
    for side, people in (("label", range(4)), ("test", range(4, 6))):
        with WindowShardWriter(str(folder / side), rate_hz=RATE_HZ) as writer:
            for number in range(len(people) * len(CLASSES) * 2):
                person, label = people[number % len(people)], CLASSES[number // 2 % len(CLASSES)]
                meta = WindowMeta(
                    uid=window_uid("task", f"{side}-{number}", "imu", 0.0),
                    dataset="task",
                    recording=f"{side}-{number}",
                    device="imu",
                    placement="waist",
                    person=f"person-{person}",
                    session=f"{side}-{number}",
                    start_s=0.0,
                    label=label,
                )
                imu = rng.standard_normal((6, SAMPLES)).astype(np.float32)
                writer.write(Window(imu=imu, meta=meta))
    return str(folder)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of ``primus-scale pretrain``."""
    folder = tmp_path_factory.mktemp("run")
    shards, held_out = write_shards(folder / "shards"), write_shards(folder / "held", 16, seed=1)
    config = tiny_config(folder / "out", shards)
    file = write_config(config, folder / "run.yaml")
    overrides = ("train.steps=2", f"data.validation=[{held_out}]")
    assert main(["pretrain", "--config", str(file), *overrides]) == 0
    return folder / "out"


def test_pretrain_leaves_an_encoder_and_its_figures(run: Path) -> None:
    assert json.loads((run / "train.json").read_text(encoding="utf-8"))["losses"]
    assert load_encoder(run / "encoder")(torch.zeros(2, 6, SAMPLES)).features.shape[0] == 2


def test_fewer_steps_than_are_done_are_refused(run: Path, tmp_path: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    file = str(run / "config.yaml")
    assert main(["pretrain", "--config", file, "train.steps=1"]) == 1
    said = capsys.readouterr().err
    assert f"{run} has 2 steps behind it, and train.steps is 1; set train.steps to 2" in said
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {"run.lock"}
    assert main(["pretrain", "--config", file]) == 0
    assert f"encoder  {run / 'encoder'}  (after 2 steps)" in capsys.readouterr().out


def test_validation_without_a_teacher_is_told(tmp_path: Path, capsys) -> None:
    shards = write_shards(tmp_path / "shards", 16, teachers={})
    weights = [
        f"objective.weights.{kind}_{m}=0"
        for kind in ("imu", "neighbour")
        for m in ("video", "text")
    ]
    config = tiny_config(
        tmp_path / "out", shards, "data.validation=[nowhere]", *weights, "train.steps=1"
    )
    assert main(["pretrain", "--config", str(write_config(config, tmp_path / "run.yaml"))]) == 0
    assert "note: data.validation is not used" in capsys.readouterr().out


def test_evaluate_a_run(run: Path, task: str, capsys) -> None:
    assert main(["evaluate", "--run", str(run), "--data", task, *SETTINGS]) == 0
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["few_shot"].keys() == {"1"}
    assert summary["few_shot"]["1"]["pretrained"].keys() == {"mean", "low", "high"}
    assert summary["losses"] == json.loads((run / "train.json").read_text())["losses"]
    assert (run / "few_shot/report.html").is_file()
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {f"confusion/{arm}" for arm in summary["few_shot"]["1"]} <= set(board.Tags()["images"])
    assert f"summary  {run / 'summary.json'}" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["named", "next to the encoder"])
def test_evaluate_an_exported_encoder(run: Path, task: str, tmp_path: Path, place: str) -> None:
    encoder = tmp_path / "some" / "encoder"
    assert main(["export", "--run", str(run), "--out", str(encoder)]) == 0
    named = ["--out", str(tmp_path / "report")] if place == "named" else []
    command = ["evaluate", "--encoder", str(encoder), "--data", task, *named, *SETTINGS]
    assert main(command) == 0
    report = tmp_path / "report" if named else tmp_path / "some" / "few_shot"
    results = json.loads((report / "few_shot.json").read_text(encoding="utf-8"))
    assert len(results["records"]) == len(results["few_shot"]["1"]) * 2  # arms, draws


def test_the_encoder_of_another_origin_is_not_replaced(run: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "encoder"
    assert main(["export", "--run", str(run), "--out", str(other)]) == 0
    assert main(["export", "--run", str(run), "--out", str(other), "calibration.kind=none"]) == 0
    card = json.loads((other / "card.json").read_text())
    (other / "card.json").write_text(json.dumps(card | {"data": {"run": "of somebody"}}))
    before = {path: path.read_bytes() for path in other.iterdir()}
    capsys.readouterr()
    for command in (
        ["export", "--run", str(run), "--out", str(other)],
        ["import-weights", str(tmp_path / "best_model.ckpt"), str(other)],
    ):
        assert main(command) == 1
        assert f"{other} holds the encoder of of somebody, not of" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in other.iterdir()} == before
    (other / "card.json").write_text("{}")  # damaged
    assert main(["export", "--run", str(run), "--out", str(other)]) == 0


def test_export_gives_the_encoder_of_the_last_step(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "encoder")]) == 0
    assert f"encoder  {tmp_path / 'encoder'}" in capsys.readouterr().out
    exported, own = load_encoder(tmp_path / "encoder"), load_encoder(run / "encoder")
    torch.testing.assert_close(exported.state_dict(), own.state_dict(), rtol=0, atol=0)


def test_import_weights(tmp_path: Path, capsys) -> None:
    weights = make_weights()
    torch.save(make_checkpoint(weights), tmp_path / "best_model.ckpt")
    assert main(["import-weights", str(tmp_path / "best_model.ckpt"), str(tmp_path / "out")]) == 0
    assert f"encoder  {tmp_path / 'out'}" in capsys.readouterr().out
    imported = load_encoder(tmp_path / "out").state_dict().values()
    for tensor in weights.values():
        assert any(torch.equal(tensor, other) for other in imported)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "--run", "nowhere", "--out", "x"], "nowhere"),
        (["import-weights", "nowhere.ckpt", "x"], "nowhere.ckpt"),
        (["evaluate", "--encoder", "nowhere", "--data", "y"], "nowhere"),
        (["evaluate", "--run", "nowhere", "--data", "y"], "nowhere"),
    ],
)
def test_what_is_missing_is_named_in_one_line(command: list[str], said: str, capsys) -> None:
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"primus-scale {command[0]}: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_pretrain_into_a_read_only_folder(tmp_path: Path, capsys) -> None:
    output = tmp_path / "closed" / "out"
    config = tiny_config(output, write_shards(tmp_path / "shards", windows=16))
    file = write_config(config, tmp_path / "run.yaml")
    output.parent.mkdir(mode=0o555)
    with bound_by_permissions():
        assert main(["pretrain", "--config", str(file)]) == 1
    assert not output.exists()
    assert f"cannot write {output / 'run.lock'} (Permission denied)" in capsys.readouterr().err


def test_evaluate_into_a_read_only_folder_fails_before_the_work(
    run: Path, task: str, tmp_path: Path, capsys
) -> None:
    report = tmp_path / "closed"
    report.mkdir(mode=0o555)
    command = ["evaluate", "--encoder", str(run / "encoder"), "--data", task, "--out", str(report)]
    with bound_by_permissions():
        assert main([*command, *SETTINGS]) == 1
    printed = capsys.readouterr()
    assert f"cannot write {report} (Permission denied)" in printed.err
    assert printed.out == ""  # no arm was trained
