"""The page on own data, run as it stands: from CSV files to a table and a classifier."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.make_recordings import ACTIVITIES, write_recordings
from tests.documents import ROOT
from tests.documents_run import run_page
from tests.few_shot_task import few_penalties  # noqa: F401


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own_data")
    write_recordings(folder / "recordings")
    return folder


@pytest.fixture(scope="module")
def page(few_penalties: None, place: Path) -> tuple[int, dict[str, Any]]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run_page(ROOT / "docs/own_data.md")


def test_six_commands_make_a_table(page: tuple[int, dict[str, Any]], place: Path) -> None:
    assert page[0] == 6
    table = json.loads((place / "runs/mine/summary.json").read_text())["few_shot"]
    assert list(table) == ["1", "5"]
    assert set(table["5"]) == {"pretrained", "random", "features"}
    assert table["5"]["pretrained"]["mean"] > 0.9
    assert 1 / len(ACTIVITIES) < table["1"]["pretrained"]["mean"]
    assert (place / "runs/mine/few_shot/report.html").is_file()


def test_the_pipeline_knows_people_that_it_never_saw(page: tuple[int, dict[str, Any]]) -> None:
    names = page[1]
    assert set(names["people"][names["test"]]) == {
        person for person, side in names["sides"].items() if side == "test"
    }
    assert names["score"] > 0.9
    assert list(names["found"][:10]) == ["sitting"] * 10  # the first 40 s of each file
