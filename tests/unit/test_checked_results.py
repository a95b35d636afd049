"""Results whose figures do not follow from their own answers are refused, wherever they lie."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from primus_scale.cli import main
from primus_scale.evaluate.checked_results import check_results
from primus_scale.evaluate.command import write_results
from primus_scale.evaluate.zero_shot import summarise_zero_shot
from tests.made_up import CLASSES, made_up

ZERO_SHOT = ("split", "pretraining_seed", "accuracy", "macro_f1", "people")
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    made = made_up({"pretrained": 6, "features": 5}, ("1", "all"), splits=(1, 2))
    records = [
        {**{name: record[name] for name in ZERO_SHOT}, "by_wording": [record["accuracy"]]}
        for record in made["records"]
        if (record["k"], record["draw"], record["arm"]) == ("1", 0, "pretrained")
    ]
    made["zero_shot"] = summarise_zero_shot(records, {name: (name,) for name in CLASSES})
    return json.loads(json.dumps(made))


def put(value: object, *path: str | int) -> Edit:
    def edit(tree: dict[str, Any]) -> None:
        at: Any = tree
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return edit


def take(*path: str | int) -> Edit:
    def edit(tree: dict[str, Any]) -> None:
        at: Any = tree
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return edit


PERSON = ("records", 0, "people", "set/p1")
EDITS: list[tuple[Edit, str]] = [
    (put(0.99, "few_shot", "1", "pretrained", "mean"), "few_shot.1.pretrained.mean is 0.99, but"),
    (put(0.0, "few_shot", "all", "features", "low"), "few_shot.all.features.low is 0.0, but"),
    (put(40, "few_shot", "1", "pretrained", "people"), "few_shot.1.pretrained.people is 40, but"),
    (put("0.7", "few_shot", "1", "features", "high"), "few_shot.1.features.high is '0.7', but"),
    (put(True, "few_shot", "1", "features", "high"), "few_shot.1.features.high is True, but"),
    (take("few_shot", "1", "features"), "few_shot.1.features is missing"),
    (put({"mean": 1.0}, "few_shot", "5"), "few_shot.5 is of no answers"),
    (put(1.0, "macro_f1", "1", "pretrained", "mean"), "macro_f1.1.pretrained.mean is 1.0, but"),
    (
        put(0.5, "paired", "1", "pretrained", "features", "low"),
        "paired.1.pretrained.features.low is 0.5, but",
    ),
    (put(99, "confusion", "1", "pretrained", 0, 0), "confusion.1.pretrained.0.0 is 99, but"),
    (put(30, *PERSON, "correct"), "records.0.people.set/p1.correct is 30, but"),
    (put(31, *PERSON, "total"), "records.0.people.set/p1.total is 31, but"),
    (put(29, *PERSON, "confusion", 0, 0), "records.0.people.set/p1.correct is"),
    (put(-3, *PERSON, "confusion", 0, 1), "records.0.people.set/p1.confusion is no table of 3 x 3"),
    (put([[1]], *PERSON, "confusion"), "records.0.people.set/p1.confusion is no table of 3 x 3"),
    (put(0.9, "records", 3, "accuracy"), "records.3.accuracy is 0.9, but"),
    (put(0.9, "records", 3, "macro_f1"), "records.3.macro_f1 is 0.9, but"),
    (put(0.9, "zero_shot", "accuracy", "mean"), "zero_shot.accuracy.mean is 0.9, but"),
    (put(0.9, "zero_shot", "records", 1, "accuracy"), "zero_shot.records.1.accuracy is 0.9, but"),
    (take("records", 0), "few_shot.1.pretrained.mean is"),
    (take(*PERSON), "records.0.accuracy is"),
    (take("records", 0, "people"), "a record or a run lacks the field 'people'"),
]


def test_results_as_they_were_written_pass(results: dict[str, Any]) -> None:
    check_results(results, "file")
    rounded = copy.deepcopy(results)
    rounded["few_shot"]["1"]["pretrained"]["mean"] += 1e-13  # another machine's last digit
    check_results(rounded, "file")


@pytest.mark.parametrize(("edit", "told"), EDITS)
def test_edited_results_are_refused_with_the_field(
    edit: Edit, told: str, results: dict[str, Any]
) -> None:
    edited = copy.deepcopy(results)
    edit(edited)
    with pytest.raises(ValueError, match=r"^file: .*run primus-scale evaluate again$") as caught:
        check_results(edited, "file")
    assert told in str(caught.value)


def test_commands_refuse_an_edited_file_and_keep_the_report(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "few_shot"
    write_results(results, folder)
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_bytes()
    edited = copy.deepcopy(results)
    edited["few_shot"]["1"]["pretrained"]["mean"] = 0.99
    (folder / "few_shot.json").write_text(json.dumps(edited))
    for command in (["report", str(folder)], ["report", str(folder), "--out", str(tmp_path)]):
        assert main(command) == 1
        said = capsys.readouterr().err
        assert (
            f"{folder / 'few_shot.json'}: few_shot.1.pretrained.mean is 0.99, but the ans" in said
        )
    assert (folder / "report.html").read_bytes() == page
    assert not (tmp_path / "report.html").exists()
