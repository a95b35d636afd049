import pytest

from primus_scale.cli import build_parser, main

COMMANDS = (
    ["shards", "build"],
    ["shards", "embed"],
    ["shards", "verify"],
    ["pretrain"],
    ["evaluate"],
    ["export"],
    ["import-weights"],
    ["bench", "step"],
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
    assert capsys.readouterr().out.startswith("usage: primus-scale " + " ".join(command))


def test_a_bad_flag_is_answered_with_the_nearest_good_one(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--encoder", "a", "--data", "b", "--outt", "c"])
    assert stop.value.code == 2
    assert "unknown flag --outt; the nearest flag is --out" in capsys.readouterr().err


def test_a_user_error_is_one_line_and_exit_code_1(capsys) -> None:
    assert main(["pretrain", "--config", "nowhere.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no configuration file nowhere.yaml" in error
