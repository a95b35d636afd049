"""Tasks of an evaluation: drawn from one folder, audited, and held against the pretraining data."""

import json
from pathlib import Path
from typing import Any

import pytest

from primus_scale.cli import main
from primus_scale.encoders.card import EncoderCard, read_card
from primus_scale.evaluate.results import who_is_tested
from primus_scale.evaluate.task import describe_pretrained, load_task
from shards.split.split import split
from tests.few_shot_task import few_penalties  # noqa: F401
from tests.unit.test_evaluate_command import export, write_side

PEOPLE = 6


def quiet(line: str) -> None:
    """Where progress goes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, and the shards of six people."""
    folder = tmp_path_factory.mktemp("task")
    write_side(folder / "shards", range(PEOPLE))
    export(folder / "encoder")
    return folder


@pytest.fixture
def card(folder: Path) -> EncoderCard:
    return read_card(folder / "encoder")


@pytest.mark.parametrize("seed", [0, 1])
def test_people_are_those_that_shards_split_draws(
    folder: Path, tmp_path: Path, card: EncoderCard, seed: int
) -> None:
    source = str(folder / "shards")
    split([source], str(tmp_path), test=0.3, seed=seed, report=quiet)
    written = load_task(str(tmp_path), card, report=quiet)
    drawn = load_task(source, card, test_people=0.3, split_seed=seed, report=quiet)
    assert drawn.split == written.split == seed
    assert drawn.found["people"].number == 0
    for one, other in ((drawn.label, written.label), (drawn.test, written.test)):
        assert one.people == other.people
        assert one.classes == other.classes
        assert one.imu.equal(other.imu)
        assert (one.label == other.label).all()
    assert len(drawn.test.people) == 2
    assert drawn.data == written.data


@pytest.mark.usefixtures("few_penalties")
def test_command_evaluates_people_of_one_folder(folder: Path, tmp_path: Path, capsys) -> None:
    command = ["evaluate", "--encoder", str(folder / "encoder"), "--data", str(folder / "shards")]
    settings = ["--out", str(tmp_path), "k=[2]", "draws=1", "arms=[features]"]
    assert main([*command, *settings, "--test-people", "0.3", "--split-seed", "4"]) == 0
    printed = capsys.readouterr().out
    assert "split by person, seed 4" in printed
    assert "people of the pretraining data: not known" in printed
    assert "on 2 people never seen" in printed
    results = json.loads((tmp_path / "few_shot.json").read_text())
    [run] = results["runs"]
    assert run["split"] == 4
    assert len(run["label_people"]), len(run["test_people"]) == (4, 2)
    assert {one["kind"]: one["number"] for one in run["audit"]}["people"] == 0
    page = (tmp_path / "report.html").read_text()
    assert "shared by labels and test: people none" in page
    assert "days not known" in page

    assert main([*command, *settings]) == 1
    assert "holds shards itself" in capsys.readouterr().err
    assert main([*command, *settings, "--split-seed", "4"]) == 1
    assert "--split-seed is of --test-people" in capsys.readouterr().err


def test_what_both_sides_have_needs_a_flag(tmp_path: Path, card: EncoderCard) -> None:
    write_side(tmp_path / "label", range(4))
    write_side(tmp_path / "test", range(3, 5))  # person 3 again, in the same recording
    may_share: list[str] = []
    for kind in ("people", "intervals"):
        with pytest.raises(ValueError, match=rf"^{kind} .* label/ and in test/.* \(--may-share"):
            load_task(str(tmp_path), card, may_share=may_share, report=quiet)
        may_share.append(kind)
    lines: list[str] = []
    task = load_task(str(tmp_path), card, may_share=may_share, report=lines.append)
    assert task.found["people"].examples == ("sines/person-3",)
    assert any(line.startswith("note: label/ and test/ have people, ") for line in lines)


def with_people(card: EncoderCard, *lists: Any) -> EncoderCard:
    train = [{"url": "x", "provenance": {"people": people}} for people in lists]
    return card.model_copy(update={"data": {"train": train}})


def test_people_of_the_pretraining_data_are_counted_on_each_side(
    folder: Path, card: EncoderCard
) -> None:
    source = str(folder / "shards")

    def counts(*lists: Any) -> Any:
        known = with_people(card, *lists)
        return load_task(source, known, test_people=0.3, report=quiet).pretrained_people

    task = load_task(source, card, test_people=0.3, report=quiet)
    label, test = ([p.removeprefix("sines/") for p in s.people] for s in (task.label, task.test))
    assert counts({"sines": label}) == {"label": 4, "test": 0, "complete": True}
    assert counts({"sines": label[:1]}, {"sines": test}) == {
        **{"label": 1, "test": 2},
        "complete": True,
    }
    assert counts({"else": label}, None) == {"label": 0, "test": 0, "complete": False}
    for unreadable in (None, {"label": [1, 2], "test": [3]}, [], "x"):
        assert counts(unreadable) is None
    assert describe_pretrained({"label": 1, "test": 0, "complete": False}, 4, 2).endswith(
        "1 of 4 label people, 0 of 2 test people (known for a part of that data)"
    )


def test_who_is_tested_is_said_as_it_is() -> None:
    run = {"label_people": ["a"], "test_people": ["b"]}
    assert who_is_tested({"runs": [run]}) == " never seen"
    seen = {**run, "pretrained_people": {"label": 1, "test": 1, "complete": True}}
    assert "pretraining data" in who_is_tested({"runs": [run, seen]})
    assert "among the labels" in who_is_tested({"runs": [{**seen, "test_people": ["a"]}]})
