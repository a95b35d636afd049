"""The few-shot report as its readers see it: on a screen, on a phone, and as Markdown."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primus_scale.evaluate.lead import lead
from primus_scale.evaluate.people import accuracy_of_people, count_gaining
from primus_scale.evaluate.report import render_files
from tests.browser import check_page
from tests.drawn import watching_charts
from tests.made_up import ARMS, made_up, made_up_map, made_up_retrieval


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return made_up(ARMS) | {"map": made_up_map(), "retrieval": [made_up_retrieval()]}


@pytest.fixture(scope="module")
def files(results: dict[str, Any]) -> dict[str, str]:
    with watching_charts() as cut:
        rendered = render_files(results)
    assert cut == []
    return rendered


def test_nothing_of_the_page_is_cut_on_a_screen_or_on_a_phone(
    files: dict[str, str], tmp_path: Path
) -> None:
    screen, _ = check_page(files["report.html"], tmp_path)
    boxes = [one["box"] for one in screen["pictures"] if "confusion" in one["alt"]]
    sizes = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    assert len(boxes) == len(ARMS)
    assert np.ptp(sizes, axis=0).max() <= 1, "panels are equal, those of the last row too"
    assert len({left for left, *_ in boxes}) > 1, "in a grid"


def test_the_lead_says_what_helped_by_how_much_on_whom_how_sure_and_at_what_cost(
    results: dict[str, Any],
) -> None:
    helped, sure, cost = lead(results)
    gain = results["paired"]["5"]["pretrained"]["random"]
    best = f"{100 * gain['mean']:+.1f} points [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    assert helped.head == (
        "Pretraining helped" if gain["low"] > 0 else "No gain by pretraining is shown"
    )
    assert f"{best} against the best of 4 baselines, " in helped.text
    assert "of the windows of 4 people never seen (set, synthetic)" in helped.text
    assert "4 people, 1 split, 1 pretraining seed, 2 draws of labels" in sure.text
    assert "4 of 4 people gain over that baseline" in sure.text
    assert cost.text.startswith(
        "pretraining took 4.0 min; pretrained, frozen + linear took 4 s for every k and draw, "
    )


def test_a_lead_claims_no_gain_that_is_none() -> None:
    equal = made_up({"pretrained": 5, "features": 5}, ("5",))
    assert lead(equal)[0].head == "No gain by pretraining is shown"
    worse = made_up({"pretrained": 3, "features": 6}, ("5",))
    assert lead(worse)[0].head == "Pretraining did not help, a baseline is better"
    assert "0 of 4 people gain over that baseline, 4 lose" in lead(worse)[1].text
    assert lead(made_up({"features": 5}, ("5",))) == []
    alone = lead(made_up({"pretrained": 5}, ("5",)))
    assert alone[0].head == "No baseline was computed"


def test_people_are_counted_one_by_one(results: dict[str, Any]) -> None:
    found = accuracy_of_people(results, "5")
    assert list(found) == list(ARMS)
    # Draws 5 and 6 of 10 for features, and one more for the second person.
    assert found["features"]["set/p1"] == pytest.approx(0.55)
    assert found["features"]["set/p2"] == pytest.approx(0.65)
    assert count_gaining(results, "5", "pretrained", "features") == (4, 0)


def test_markdown_has_the_figures_of_the_page_and_its_pictures_as_files(
    results: dict[str, Any], files: dict[str, str]
) -> None:
    text = files["report.md"]
    page = re.sub("<[^>]+>", "", files["report.html"].split("<body>")[1])
    for sentence in lead(results):
        assert sentence.text in text and sentence.text in page
    for section in ("few_shot", "macro_f1"):
        for row in results[section].values():
            for interval in row.values():
                assert f"{100 * interval['mean']:.1f}" in text
    for heading in re.findall("<h2>(.*)</h2>", files["report.html"]):
        assert f"\n## {heading}\n" in text
    pictures = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
    assert pictures == files.keys() - {"report.html", "report.md"}
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables:
        rows = table.splitlines()
        assert re.fullmatch(r"\|( --[-:] \|)+", rows[1])
        assert len({row.count("|") for row in rows}) == 1
    assert len(tables) == 7
    assert "its own at place 2, finds: 1. C does 0; 2. C does 1 (right); 3. C does 2;" in text
