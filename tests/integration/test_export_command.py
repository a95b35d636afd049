"""``primus-scale export``: what may be named, and what the message says where it may not."""

import json
from pathlib import Path

import pytest

from primus_scale.cli import main
from primus_scale.encoders.device_file import PARITY, drawn_windows
from primus_scale.encoders.onnx_export import encode_onnx
from primus_scale.encoders.pretrained import load_encoder
from tests.encoder_factory import export_small_encoder
from tests.integration.tiny import tiny_config
from tests.shard_factory import make_windows, write_windows


def error_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(command) == 1
    return capsys.readouterr().err


def test_the_packaged_encoder_becomes_an_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--run", "demo", "--onnx", "demo.onnx"]) == 0
    encoder = load_encoder("demo")
    windows = drawn_windows(encoder)[:3]
    expected = encoder(windows).features.detach().numpy()
    assert abs(encode_onnx("demo.onnx", windows) - expected).max() < PARITY * abs(expected).max()


def test_int8_without_windows_names_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.onnx")
    said = error_of(capsys, "export", "--run", "demo", "--onnx", out, "--int8")
    assert "give --data URL" in said
    export = export_small_encoder(tmp_path / "somewhere")
    said = error_of(capsys, "export", "--encoder", export, "--onnx", out, "--int8")
    assert f"no run with its data belongs to {export}; give --data URL" in said
    assert not Path(out).exists()


def test_int8_takes_the_windows_of_data_or_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, run = str(tmp_path / "shards"), tmp_path / "run"
    write_windows(shards, make_windows(12, samples=250))
    export = export_small_encoder(run / "encoder")
    out = str(tmp_path / "x.onnx")
    assert main(["export", "--run", export, "--onnx", out, "--int8", "--data", shards]) == 0
    assert json.loads(Path(f"{out}.json").read_text())["onnx"]["precision"] == "int8"
    config = tiny_config(run, shards)
    (run / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    assert main(["export", "--run", export, "--onnx", out, "--int8"]) == 0, "of the run above it"
    gone = tiny_config(run, str(tmp_path / "gone"))
    (run / "config.yaml").write_text(json.dumps(gone.model_dump(mode="json")))
    said = error_of(capsys, "export", "--run", str(run), "--onnx", out)
    assert "training windows of the run cannot be read" in said
    assert "--data URL" in said


@pytest.mark.parametrize("command", ["export", "evaluate"])
@pytest.mark.parametrize("name", ["demo", "hf://owner/name"])
def test_a_run_is_asked_for_where_an_encoder_is_named(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error_of(capsys, command, "--run", name, "--out", str(tmp_path / "out"))
    assert f"--run takes the output folder of a training run, and {name} names an" in said
    assert ("--executorch take it" if command == "export" else f"--encoder {name} eval") in said


@pytest.mark.parametrize("command", ["export", "evaluate"])
def test_a_folder_without_a_run_is_told(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = export_small_encoder(tmp_path / "encoder")
    said = error_of(capsys, command, "--run", export, "--out", str(tmp_path / "out"))
    assert f"{export} is no output folder of a training run: it has no config.yaml" in said


def test_flags_of_other_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.onnx")
    said = error_of(capsys, "export", "--run", "demo", "--executorch", out, "--int8")
    assert "--int8 is of an ONNX file" in said
    said = error_of(capsys, "export", "--run", "demo", "--onnx", out, "calibration.kind=none")
    assert "settings are of an export to a folder" in said
    said = error_of(capsys, "export", "--run", "hf://name", "--onnx", out)
    assert "write hf://OWNER/NAME" in said


@pytest.mark.parametrize(("flag", "suffix"), [("--onnx", ".onnx"), ("--executorch", ".pte")])
def test_files_of_others_stay_as_they_are(
    flag: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, other = tmp_path / "index.json", tmp_path / f"other{suffix}"
    index.write_text("{}")
    other.write_text("a model of somebody")
    said = error_of(capsys, "export", "--run", "demo", flag, str(index))
    assert f"is written to a file {suffix}; name one" in said
    said = error_of(capsys, "export", "--run", "demo", flag, str(other))
    assert "is there already and is not an encoder" in said
    (tmp_path / f"folder{suffix}").mkdir()
    said = error_of(capsys, "export", "--run", "demo", flag, str(tmp_path / f"folder{suffix}"))
    assert "is a folder; name a file in it" in said
    assert (index.read_text(), other.read_text()) == ("{}", "a model of somebody")
