"""Checkpoints: whole or not at all, damaged ones passed over, those of other runs refused."""

import io
import logging
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from primus_scale.checkpoint import identity
from primus_scale.checkpoint.folder import newest_encoder
from primus_scale.checkpoint.manifest import StepCounts, dump_manifest, file_entry, read_manifest
from primus_scale.checkpoint.room import expected_bytes
from primus_scale.config import Config, TrainConfig
from primus_scale.config_file import apply_overrides
from primus_scale.distributed.group import Runtime, start_runtime, stop_runtime
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.engine.zero_state import StateFiles
from primus_scale.train.run import Run, build_run
from primus_scale.train.trainer import pretrain
from tests.full_disk import files_limited_to, small_disk
from tests.integration.tiny import PAPER, tiny_config, write_shards
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import save_model


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = start_runtime(TrainConfig(device="cpu", threads=1))
    yield runtime
    stop_runtime(runtime)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / "out", write_shards(tmp_path / "shards", windows=16))


def save(run: Run, *steps: int) -> list[Path]:
    for step in steps:
        run.checkpoints.save(run.engine, run.support, StepCounts(step))
    return sorted((Path(run.config.output) / "checkpoints").iterdir())


def test_newest_is_resumed_and_only_the_last_are_kept(config: Config, runtime: Runtime) -> None:
    run = build_run(config, runtime)
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts()
    folders = save(run, 3, 6, 9)
    assert [folder.name for folder in folders] == ["step-00000006", "step-00000009"]

    weights = run.engine.encoder_state()
    with torch.no_grad():
        for parameter in run.engine.model.parameters():
            parameter.add_(1.0)
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts(9)
    torch.testing.assert_close(run.engine.encoder_state(), weights, rtol=0, atol=0)
    exported = load_encoder(newest_encoder(config.output))
    torch.testing.assert_close(dict(exported.state_dict()), weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "support/part-00000-of-00001.safetensors",
        "state/mp_rank_00_model_states.pt",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_damaged_newest_is_passed_over_with_a_warning(
    config: Config, runtime: Runtime, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    run = build_run(config, runtime)
    file = save(run, 3, 6)[-1] / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert run.checkpoints.resume(run.engine, run.support) == StepCounts(3)
    assert "step-00000006" in caplog.text


def test_pruning_spares_the_one_just_written_beside_damaged_newer_ones(
    config: Config, runtime: Runtime
) -> None:
    run = build_run(apply_overrides(config, ["train.keep_checkpoints=1"]), runtime)
    run.checkpoints.save(run.engine, run.support, StepCounts(6))
    before = Path(config.output) / "checkpoints/step-00000006"
    shutil.copytree(before, before.with_name("step-00000009"))
    (before.with_name("step-00000009") / "manifest.json").write_text("{")
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts(6)
    assert [folder.name for folder in save(run, 7)] == ["step-00000007"]
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts(7)


def test_all_damaged_is_an_error_not_a_new_start(config: Config, runtime: Runtime) -> None:
    run = build_run(config, runtime)
    for folder in save(run, 3, 6):
        (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"none of the checkpoints in .* is whole"):
        run.checkpoints.resume(run.engine, run.support)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("encoder.ss_dim=8", "encoder.ss_dim is 16 there and 8 here"),
        ("encoder.name=stacked_rnn", "encoder.name is 'conv_stats' there"),
        ("support.capacity=24", "support.capacity is 20 there and 24 here"),
        ("train.batch=16", "train.batch is 8 there and 16 here"),
        ("train.zero_stage=1", "train.zero_stage is 0 there and 1 here"),
        ("objective.weights.imu_imu=0.25", "objective.weights.imu_imu is 0.5 there"),
    ],
)
def test_checkpoint_of_another_run_is_refused_naming_the_field(
    config: Config, runtime: Runtime, override: str, field: str
) -> None:
    save(build_run(config, runtime), 3)
    other = build_run(tiny_config(Path(config.output), config.data.train[0], override), runtime)
    with pytest.raises(ValueError, match=field):
        other.checkpoints.resume(other.engine, other.support)


def test_checkpoint_of_other_data_is_refused_but_moved_data_is_not(
    config: Config, runtime: Runtime, tmp_path: Path
) -> None:
    save(build_run(config, runtime), 3)
    moved = Path(config.data.train[0]).rename(tmp_path / "moved")
    same = build_run(tiny_config(Path(config.output), str(moved)), runtime)
    assert same.checkpoints.resume(same.engine, same.support) == StepCounts(3)

    others = write_shards(tmp_path / "others", windows=16, seed=1)
    other = build_run(tiny_config(Path(config.output), others), runtime)
    with pytest.raises(ValueError, match=r"data\.train \(content\)"):
        other.checkpoints.resume(other.engine, other.support)


def test_live_teacher_may_move_but_not_change(runtime: Runtime, tmp_path: Path) -> None:
    shards, model = str(tmp_path / "shards"), tmp_path / "model"
    write_windows(shards, make_windows(16, samples=200))
    save_model(model, "clip")

    def live_run(folder: Path) -> Run:
        names = {"mode": "live", "video": str(folder), "text": str(folder)}
        return build_run(tiny_config(tmp_path / "out", shards, teachers=names), runtime)

    save(live_run(model), 3)
    moved = live_run(model.rename(tmp_path / "moved"))
    assert moved.checkpoints.resume(moved.engine, moved.support) == StepCounts(3)
    other = live_run(save_model(model, "clip", seed=1))
    with pytest.raises(ValueError, match=r"teachers\.text \(key\) is .*teachers\.video \(key\) is"):
        other.checkpoints.resume(other.engine, other.support)


@pytest.mark.parametrize("last_written", ["", "encoder/card.json", "encoder/encoder.safetensors"])
def test_full_disk_is_an_error_and_the_one_before_stays(
    config: Config, runtime: Runtime, last_written: str
) -> None:
    run = build_run(config, runtime)
    (before,) = save(run, 3)
    room = (before / last_written).stat().st_size if last_written else 100
    told = r"step-00000006 could not be written \(.*\); step-00000003 stays current"
    with files_limited_to(room), pytest.raises(OSError, match=told):
        save(run, 6)
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts(3)
    assert [folder.name for folder in save(run, 6)] == ["step-00000003", "step-00000006"]


def test_full_disk_at_the_first_checkpoint_says_that_there_is_none(
    config: Config, runtime: Runtime
) -> None:
    run = build_run(config, runtime)
    told = r"step-00000003 could not be written \(.*\); there is none before it\. Free some space"
    with files_limited_to(100), pytest.raises(OSError, match=told):
        save(run, 3)


@pytest.mark.parametrize("stage", [0, 1])
def test_room_that_is_asked_for_is_that_of_a_checkpoint(tmp_path: Path, stage: int) -> None:
    shards = write_shards(tmp_path / "shards", windows=16)
    overrides = (PAPER, f"train.zero_stage={stage}", "train.steps=1")
    config = tiny_config(tmp_path / "out", shards, *overrides)
    assert pretrain(config) == 0
    assert not list((tmp_path / "out/checkpoints").glob(".*")), "nothing is left of the trial"
    folder = tmp_path / "out/checkpoints/step-00000001"
    parameters = sum(tensor.numel() for tensor in load_encoder(folder / "encoder").parameters())
    sizes = expected_bytes(parameters, stage, support=0)
    for name in ("encoder", "state"):
        written = sum(path.stat().st_size for path in (folder / name).iterdir())
        assert written == pytest.approx(sizes[name], rel=0.05), name


def test_no_room_for_a_checkpoint_is_told_before_training(
    config: Config, runtime: Runtime, tmp_path: Path
) -> None:
    stored = apply_overrides(config, [f"train.storage={tmp_path / 'storage'}"])
    for each, place in ((config, "out/checkpoints"), (stored, "out/checkpoints")):
        run = build_run(each, runtime)
        told = rf"{place} cannot hold a checkpoint of \d+\.\d MiB \(File too large; .* free\)"
        with files_limited_to(2**20), pytest.raises(OSError, match=told):
            run.checkpoints.check_room(run.support)
    with small_disk(tmp_path / "storage", 2**20):
        if (tmp_path / "storage").is_mount():
            with pytest.raises(OSError, match="storage/tiny/checkpoints cannot hold a checkpoint"):
                run.checkpoints.check_room(run.support)


def test_state_with_other_classes_inside_is_not_unpickled(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.save({"module": Path("/")}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        StateFiles().load(str(path))


def reseal(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, and a manifest that says so next to it."""
    (folder / name).write_bytes(content)
    manifest = read_manifest(folder)
    manifest["files"][name] = file_entry(folder / name)
    (folder / "manifest.json").write_text(dump_manifest(manifest))


def torch_bytes(tree: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


STATE_FILE = "state/mp_rank_00_model_states.pt"
SUPPORT_FILE = "support/part-00000-of-00001.safetensors"
NO_STATE = {
    "empty": b"",
    "text": b"no state",
    "pickle": pickle.dumps({"module": {}}),
    "class": torch_bytes({"module": Path("/")}),
    "cut": torch_bytes({"module": {}})[:200],
}


@pytest.mark.parametrize("content", NO_STATE.values(), ids=NO_STATE.keys())
def test_resealed_file_that_is_no_state_is_passed_over(
    config: Config, runtime: Runtime, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    run = build_run(config, runtime)
    reseal(save(run, 3, 6)[-1], STATE_FILE, content)
    with caplog.at_level(logging.WARNING):
        assert run.checkpoints.resume(run.engine, run.support) == StepCounts(3)
    assert f"step-00000006/{STATE_FILE}" in caplog.text


OTHER_TREES = {
    "no tree": 3,
    "nothing": {},
    "module of nothing": {"module": None},
    "module of text": {"module": {"encoder": "weights"}},
    "module without weights": {"module": {}},
    "other shapes": {"module": {"encoder.mean": torch.zeros(2)}},
}


@pytest.mark.parametrize("tree", OTHER_TREES.values(), ids=OTHER_TREES.keys())
def test_resealed_state_of_something_else_is_an_error_naming_the_checkpoint(
    config: Config, runtime: Runtime, tree: Any
) -> None:
    run = build_run(config, runtime)
    folder = save(run, 3)[-1]
    reseal(folder, STATE_FILE, torch_bytes(tree))
    with pytest.raises(ValueError, match=r"step-00000003: state: .*; remove it to go on") as caught:
        run.checkpoints.resume(run.engine, run.support)
    assert len(str(caught.value)) < 800


OTHER_SUPPORT = {
    "nothing": {},
    "other names": {"x": torch.zeros(3)},
    "count of text": {"added": torch.zeros(3), "number": torch.zeros(3)},
}


@pytest.mark.parametrize("tensors", OTHER_SUPPORT.values(), ids=OTHER_SUPPORT.keys())
def test_resealed_support_set_of_something_else_is_an_error_naming_it(
    config: Config, runtime: Runtime, tensors: dict[str, torch.Tensor]
) -> None:
    run = build_run(config, runtime)
    folder = save(run, 3)[-1]
    reseal(folder, SUPPORT_FILE, safetensors.torch.save(tensors))
    with pytest.raises(ValueError, match=r"step-00000003.*support"):
        run.checkpoints.resume(run.engine, run.support)


def test_resealed_support_set_without_offsets_is_passed_over(
    config: Config, runtime: Runtime
) -> None:
    run = build_run(config, runtime)
    header = b'{"added":{"dtype":"I64","shape":[99999999],"data_offsets":[0,8]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    reseal(save(run, 3, 6)[-1], SUPPORT_FILE, content)
    assert run.checkpoints.resume(run.engine, run.support) == StepCounts(3)


def test_no_checkpoint_to_export_is_an_error_naming_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        newest_encoder(tmp_path)


def test_fields_added_later_leave_older_runs_their_identity(tmp_path: Path) -> None:
    """A checkpoint of before names neither the loss nor its bias; the run goes on as it was."""
    older = {"objective.loss", "objective.bias"}
    config = tiny_config(tmp_path, "unread")
    assert not older & set(identity._fixed_fields(config))
    changed = apply_overrides(config, ["objective.loss=sigmoid", "objective.bias=-5"])
    assert older <= set(identity._fixed_fields(changed))
