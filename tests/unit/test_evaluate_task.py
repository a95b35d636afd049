"""Tasks of an evaluation: drawn from one folder, audited, and held against the pretraining data."""

import json
from pathlib import Path
from typing import Any

import pytest

from primus_scale.cli import main
from primus_scale.config import Config, FewShotConfig, TaskConfig
from primus_scale.config_file import parse_config
from primus_scale.encoders.card import EncoderCard, read_card
from primus_scale.evaluate.results import who_is_tested
from primus_scale.evaluate.task import describe_pretrained, load_task
from primus_scale.study.plan import Trial
from primus_scale.study.trial import TrialPlace, task_of
from shards.split.split import split
from tests.few_shot_files import export, write_side
from tests.few_shot_task import few_penalties  # noqa: F401

PEOPLE = 6
DRAWN = TaskConfig(test=0.3)


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
    written = load_task([str(tmp_path)], card, report=quiet)
    drawn = load_task([source], card, TaskConfig(test=0.3, seed=seed), report=quiet)
    assert drawn.split == written.split == seed
    assert drawn.audit["people"].number == 0
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

    def allowing() -> TaskConfig:
        return TaskConfig.model_validate({"may_share": may_share})

    for kind in ("people", "intervals"):
        with pytest.raises(ValueError, match=rf"^{kind} .* label/ and in test/.* \(--may-share"):
            load_task([str(tmp_path)], card, allowing(), report=quiet)
        may_share.append(kind)
    lines: list[str] = []
    task = load_task([str(tmp_path)], card, allowing(), report=lines.append)
    assert task.audit["people"].examples == ("sines/person-3",)
    assert any(line.startswith("note: label/ and test/ have people, ") for line in lines)


def test_labels_are_mapped_and_named_units_are_tested(folder: Path, card: EncoderCard) -> None:
    source = str(folder / "shards")
    labels = {"slow": "moving", "fast": "moving"}
    config = TaskConfig(labels=labels, test=("person-2", "sines/person-4"))
    task = load_task([source], card, config, report=quiet)
    assert task.test.people == ["sines/person-2", "sines/person-4"]
    assert len(task.label.people) == 4
    assert task.label.classes == task.test.classes == ("moving", "still")
    plain = load_task([source], card, TaskConfig(test=("person-2", "person-4")), report=quiet)
    names = [labels.get(plain.test.classes[i], "still") for i in plain.test.label]
    assert [task.test.classes[i] for i in task.test.label] == names
    dropped = TaskConfig(labels={"slow": None}, test="person-2")  # one name for a list of it
    without = load_task([source], card, dropped, report=quiet).test
    assert without.classes == ("fast", "still")
    of_person = plain.test.label[plain.test.person == "sines/person-2"]
    slow = plain.test.classes.index("slow")
    assert 0 < len(without) == int((of_person != slow).sum()) < len(of_person)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"labels": {"slwo": "moving"}, "test": 0.3}, "no window has label 'slwo'.*'slow'"),
        ({"test": ["person-9"]}, "no window is of person 'person-9'"),
        ({"test": [f"person-{n}" for n in range(PEOPLE)]}, "every person is for the test"),
        ({"by": "placement", "test": ["waist"]}, "the windows are of one placement only"),
        ({"test": 1.5}, "must lie between 0 and 1, got 1.5"),
    ],
)
def test_a_task_that_the_data_do_not_make_is_refused(
    folder: Path, card: EncoderCard, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load_task([str(folder / "shards")], card, TaskConfig.model_validate(config), report=quiet)


@pytest.mark.parametrize("divided", [True, False])
def test_a_task_of_one_class_or_of_none_is_refused(
    divided: bool, tmp_path: Path, card: EncoderCard
) -> None:
    sides = {"label": range(4), "test": range(4, 6)}
    for side, people in sides.items():
        write_side(tmp_path / side, people)
    urls = [f"{tmp_path}/{side}" for side in sides] if divided else [str(tmp_path)]
    names = ("slow", "fast", "still")

    def load(labels: dict[str, str | None]) -> None:
        task = {"labels": labels, **({"test": 0.3} if divided else {})}
        load_task(urls, card, TaskConfig.model_validate(task), report=quiet)

    with pytest.raises(ValueError, match=r"all labelled .* are a, .*task\.labels gives windows"):
        load(dict.fromkeys(names, "a"))
    with pytest.raises(ValueError, match=r"no window of .* has a label.*task\.labels gives wind"):
        load(dict.fromkeys(names))


def test_a_map_holds_for_two_folders_too(tmp_path: Path, card: EncoderCard) -> None:
    write_side(tmp_path / "label", range(3))
    write_side(tmp_path / "test", range(3, 5))
    config = TaskConfig(labels={"slow": "moving", "fast": "moving"})
    task = load_task([str(tmp_path)], card, config, report=quiet)
    assert task.label.classes == task.test.classes == ("still", "moving")
    with pytest.raises(ValueError, match="read as one and divided: say what is tested"):
        load_task([str(tmp_path), str(tmp_path)], card, report=quiet)


def test_a_study_fills_in_where_its_task_is(tmp_path: Path) -> None:
    place = TrialPlace(Trial("a", 2, 0), tmp_path, "d/2", "d/2/packed/train", "d/2/few_shot")
    config = parse_config(Config, {"name": "a", "output": "o", "data": {"train": ["x"]}}, "test")
    data, plain = task_of(place, config)
    assert (data, plain.few_shot.task.seed) == ("d/2/few_shot", 2)
    task = TaskConfig.model_validate({"data": ["{data}/w{split}"], "test": 0.3})
    few_shot = FewShotConfig(task=task)
    data, other = task_of(place, config.model_copy(update={"few_shot": few_shot}))
    assert data is None
    assert other.few_shot.task.data[0].endswith("d/2/w2")


def with_people(card: EncoderCard, *lists: Any) -> EncoderCard:
    train = [{"url": "x", "provenance": {"people": people}} for people in lists]
    return card.model_copy(update={"data": {"train": train}})


def test_people_of_the_pretraining_data_are_counted_on_each_side(
    folder: Path, card: EncoderCard
) -> None:
    source = str(folder / "shards")

    def counts(*lists: Any) -> Any:
        known = with_people(card, *lists)
        return load_task([source], known, DRAWN, report=quiet).pretrained_people

    task = load_task([source], card, DRAWN, report=quiet)
    label, test = ([p.removeprefix("sines/") for p in s.people] for s in (task.label, task.test))
    assert counts({"sines": label}) == {"label": 4, "test": 0, "complete": True}
    assert counts({"sines": label[:1]}, {"sines": test}) == {
        **{"label": 1, "test": 2},
        "complete": True,
    }
    assert counts({"else": label}, None) == {"label": 0, "test": 0, "complete": False}
    notes: list[str] = []
    other_spelling = with_people(card, {"sines": [label[0].upper()]})
    load_task([source], other_spelling, DRAWN, report=notes.append)
    spelt = f"sines/{label[0].upper()} and sines/{label[0]}"
    assert [note for note in notes if "pretraining data and of the task" in note and spelt in note]
    unreadable: tuple[Any, ...] = (None, {"label": [1, 2], "test": [3]}, [], "x")
    for one in unreadable:
        assert counts(one) is None
    assert describe_pretrained({"label": 1, "test": 0, "complete": False}, 4, 2).endswith(
        "1 of 4 label people, 0 of 2 test people (known for a part of that data)"
    )


def test_who_is_tested_is_said_as_it_is() -> None:
    run = {"label_people": ["a"], "test_people": ["b"]}
    assert who_is_tested({"runs": [run]}) == " never seen"
    seen = {**run, "pretrained_people": {"label": 1, "test": 1, "complete": True}}
    assert "pretraining data" in who_is_tested({"runs": [run, seen]})
    assert "among the labels" in who_is_tested({"runs": [{**seen, "test_people": ["a"]}]})
    shared = {"runs": [run], "protocol": {"task": {"may_share": ["people"]}}}
    assert "under other names" in who_is_tested(shared)
