import sys

import pytest

import primus_scale
from benchmarks import few_shot, ingest, recall, step, support
from launch import deepspeed_train, ray_train
from primus_scale.cli import build_parser, main
from primus_scale.config import FewShotConfig
from tests.integration.tiny import tiny_config, write_config, write_shards

COMMANDS = (
    ["shards", "build"],
    ["shards", "build", "demo"],
    ["shards", "build", "gopro"],
    ["shards", "embed"],
    ["shards", "split"],
    ["shards", "verify"],
    ["shards", "stats"],
    ["pretrain"],
    ["evaluate"],
    ["audit-split"],
    ["export"],
    ["import-weights"],
    ["encode"],
    ["completion"],
    ["study", "run"],
    ["study", "status"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_explains_every_flag(command, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    parser = build_parser()
    for word in command:
        actions = parser._subparsers._group_actions[0]
        parser = actions.choices[word]
    assert all(action.help for action in parser._actions)
    assert parser.description
    printed = capsys.readouterr().out
    assert printed.startswith("usage: primus-scale " + " ".join(command))
    assert "default: None" not in printed


@pytest.mark.parametrize("benchmark", [step, ingest, recall, support, few_shot])
def test_help_of_every_benchmark_explains_every_flag(benchmark, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--help"])
    assert stop.value.code == 0
    module = benchmark.__name__
    assert f"usage: python -m {module} " in " ".join(capsys.readouterr().out.split())
    assert all(action.help for action in benchmark.build_parser()._actions)


def test_a_user_error_of_a_benchmark_is_one_line_and_exit_code_1(tmp_path, capsys) -> None:
    assert ingest.main(["ride.mp4", "--json", str(tmp_path / "figures.json")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ride.mp4: write READER=URL" in error
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("program", [ray_train, deepspeed_train, few_shot])
def test_help_of_every_launcher_tells_of_configuration_and_overrides(program, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        program.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--config FILE" in printed
    assert "key=value" in printed
    assert "local_rank" not in printed


@pytest.mark.parametrize("program", [ray_train, deepspeed_train, few_shot])
def test_a_user_error_of_a_launcher_is_one_line_and_exit_code_1(program, tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")] if program is few_shot else []
    assert program.main(["--config", "nowhere.yaml", *out]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no configuration file nowhere.yaml" in error
    assert not (tmp_path / "out").exists()


def test_help_of_evaluate_lists_every_setting_with_its_default(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "  draws=10                  random choices of the labelled windows" in lines
    assert any(line.startswith('  k=[1,5,10,50,"all"] ') for line in lines)
    for name, field in FewShotConfig.model_fields.items():
        assert field.description
        assert any(line.startswith(f"  {name}=") for line in lines)


def test_defaults_are_shown_where_there_are_any(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["shards", "build", "demo", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "of everything that is drawn (default: 0)" in printed
    assert "folder to write to --workers" in printed
    assert "replace shards that already lie in the folder" in printed
    assert "(default: False)" not in printed


def test_a_bad_flag_is_answered_with_the_nearest_good_one(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--encoder", "a", "--data", "b", "--outt", "c"])
    assert stop.value.code == 2
    assert "unknown flag --outt; the nearest flag is --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain", "--config", "x.yaml", "train.steps=3", "train.steps=4"],
        ["evaluate", "--encoder", "demo", "k=[1]", "--data", "x", "draws=2", "k=[5]"],
        ["export", "--run", "x", "--out", "y", "seed=1", "seed=1"],
    ],
)
def test_a_setting_that_is_given_twice_is_refused(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "= is given twice; give it once" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_told_without_numbers(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    for out, said in (
        (tmp_path / "file", f"{tmp_path / 'file'} is a file; name a folder to write to"),
        (tmp_path / "file/x", f"cannot write {tmp_path / 'file/x'} (Not a directory)"),
    ):
        assert main(["push", "demo", "hf://me/imu", "--dry-run", str(out)]) == 1
        assert f"error: {said}" in capsys.readouterr().err


def test_a_bad_command_is_answered_with_the_nearest_good_one(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evalute", "--run", "x"])
    assert "invalid choice: 'evalute'; the nearest is 'evaluate'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["shards", "buld"])
    assert "invalid choice: 'buld'; the nearest is 'build'" in capsys.readouterr().err


def test_without_a_command_there_is_help(capsys) -> None:
    assert main([]) == 0
    assert "usage: primus-scale" in capsys.readouterr().out


def test_version(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"primus-scale {primus_scale.__version__}\n"


def test_a_user_error_is_one_line_and_exit_code_1(capsys) -> None:
    assert main(["pretrain", "--config", "nowhere.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no configuration file nowhere.yaml" in error


def test_missing_faiss_is_named_with_the_extra_that_brings_it(
    tmp_path, capsys, monkeypatch
) -> None:
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards", windows=16))
    file = write_config(config, tmp_path / "run.yaml")
    monkeypatch.setitem(sys.modules, "faiss", None)  # which is how Python notes an absent module
    assert main(["pretrain", "--config", str(file)]) == 1
    assert "pip install 'primus-scale[cpu]'" in capsys.readouterr().err


def test_settings_of_a_study_may_stand_after_its_flags() -> None:
    words = ["study", "run", "a.yaml", "seed=1", "--out", "b", "train.steps=3", "--jobs", "2"]
    args = build_parser().parse_args(words)
    assert (args.study, args.overrides, args.jobs) == ("a.yaml", ["seed=1", "train.steps=3"], 2)
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "other.yaml"])


def test_an_error_says_where_relative_paths_begin(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--config", "nowhere.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith(f" (paths begin at {tmp_path})\n")
    for whole in (f"{tmp_path}/nowhere.yaml", "runs/none"):
        assert main(["pretrain", "--config", whole]) == 1
        assert ("paths begin at" in capsys.readouterr().err) == (whole == "runs/none")
    assert main(["shards", "verify", "data/none"]) == 1
    assert f"(paths begin at {tmp_path})" in capsys.readouterr().err
