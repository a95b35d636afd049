"""The page of a study as its readers see it, what its variants vary, and ranks over tasks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from primus_scale.evaluate import statistics
from primus_scale.evaluate.ranks import critical_difference, rank_competitors
from primus_scale.study.comparison import compare_results, render_comparison
from primus_scale.study.page import Shown, render_study
from primus_scale.study.tables import term_effects
from primus_scale.study.varied import Point, shares_of_data, single_settings, term_sets
from tests.browser import check_page
from tests.drawn import watching_charts
from tests.made_up import made_up

WEIGHTS = {"imu_near": 1.0, "imu_imu": 0.05, "imu_video": 0.02, "imu_text": 0.02}
BASE = {f"objective.weights.{term}": weight for term, weight in WEIGHTS.items()} | {
    **{"data.fraction": 1.0, "data.fraction_by": "session"},
    **{"objective.temperature.initial": 0.1, "objective.neighbours.exclude": "moment"},
}
REFERENCE = "all_families_of_terms"
CHANGES: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "no_near": {"objective.weights.imu_near": 0.0},
    "no_self": {"objective.weights.imu_imu": 0.0},
    "near": dict.fromkeys([f"objective.weights.{term}" for term in list(WEIGHTS)[1:]], 0.0),
    "hot": {"objective.temperature.initial": 0.2},
    "cold": {"objective.temperature.initial": 0.05},
    "exclude_window": {"objective.neighbours.exclude": "window"},
    "two": {"objective.temperature.initial": 0.2, "objective.neighbours.exclude": "window"},
    "sessions_10": {"data.fraction": 0.1},
    "windows_10": {"data.fraction": 0.1, "data.fraction_by": "window"},
}
SETTINGS = {name: {**BASE, **changes} for name, changes in CHANGES.items()}
RIGHT = {REFERENCE: 7, "no_near": 3, "no_self": 6}  # of 10; the others 4
COST = {"pretraining_s": 10.0, "evaluation_s": 2.0, "windows_per_s": 400.0, "peak_memory_mb": 900.0}


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """How wide intervals are is not the subject here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 99)
        yield


@pytest.fixture(scope="module")
def pooled() -> dict[str, dict[str, Any]]:
    levels = {name: RIGHT.get(name, 4) for name in CHANGES}
    made = {
        level: made_up({"pretrained": level, "features": 5}, ("1", "5"), splits=(1, 2, 3))
        for level in set(levels.values())
    }
    return {name: made[level] for name, level in levels.items()}


@pytest.fixture(scope="module")
def files(pooled: dict[str, dict[str, Any]]) -> dict[str, str]:
    records = {
        f"{name}-split{split}-seed0": {
            **{"variant": name, "split": split, "cost": COST | {"pretraining_s": 9.0 + split}},
            **{"commit": "0123456789", "hardware": {"processor": "a CPU", "cores": 2}},
        }
        for name in CHANGES
        for split in (1, 2, 3)
    }
    failed = {"warm-split2-seed0": f"out of | luck <b> {'no/end/of/a/path/' * 12}"}
    shown = Shown("example", 30, pooled, records, SETTINGS, failed, REFERENCE)
    with watching_charts() as cut:
        rendered = render_study(shown)
    assert cut == []
    return rendered


def test_nothing_of_the_page_is_cut_on_a_screen_or_on_a_phone(
    files: dict[str, str], tmp_path: Path
) -> None:
    for seen in check_page(files["report.html"], tmp_path):
        assert len(seen["pictures"]) == 10


def test_markdown_has_what_the_page_has(files: dict[str, str]) -> None:
    text = files["report.md"]
    for heading in re.findall("<h2>(.*)</h2>", files["report.html"]):
        assert f"\n## {heading}\n" in text
    pictures = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
    assert pictures == files.keys() - {"report.html", "report.md"}
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
    said = "variant all_families_of_terms is the best: its frozen encoder is right on 77.5 %"
    assert said in text and said in files["report.html"]
    assert "pretraining took 11 s a trial in the median, from 10 s to 12 s" in text
    assert "of 9 other variants 0 are shown to be better than all_families_of_terms" in text


def test_charts_are_of_what_varies() -> None:
    sets = term_sets(SETTINGS, REFERENCE)
    assert sets is not None
    assert sets.families == {
        "near in time": {"imu_near"},
        "self-supervised": {"imu_imu"},
        "multimodal": {"imu_video", "imu_text"},
    }
    assert sets.on.keys() == {REFERENCE, "no_near", "no_self", "near"}
    assert sets.pairs("near in time") == [(REFERENCE, "no_near")]
    assert sets.pairs("multimodal") == [("no_self", "near")]
    assert sets.pairs("self-supervised") == [(REFERENCE, "no_self")]
    assert single_settings(SETTINGS, REFERENCE) == {
        "objective.temperature.initial": [
            *(Point(0.05, "cold"), Point(0.1, REFERENCE), Point(0.2, "hot"))
        ],
        "objective.neighbours.exclude": [
            *(Point("moment", REFERENCE), Point("window", "exclude_window"))
        ],
    }
    assert shares_of_data(SETTINGS, REFERENCE) == {
        "whole sessions": [Point(0.1, "sessions_10"), Point(1.0, REFERENCE)],
        "windows of every session": [Point(0.1, "windows_10"), Point(1.0, REFERENCE)],
    }
    without = {name: SETTINGS[name] for name in ("sessions_10", "windows_10", "hot")}
    assert shares_of_data(without, REFERENCE) == {}, "its trials may have failed"
    plain = {name: SETTINGS[name] for name in (REFERENCE, "two")}
    assert term_sets(plain, REFERENCE) is None
    assert single_settings(plain, REFERENCE) == shares_of_data(plain, REFERENCE) == {}


def test_a_family_adds_the_mean_difference_of_its_pairs(pooled: dict[str, dict[str, Any]]) -> None:
    sets = term_sets(SETTINGS, REFERENCE)
    assert sets is not None
    found = term_effects(pooled, sets)

    def right(name: str) -> float:  # draws 0 and 1, as made_up makes them
        return float(np.mean([min(RIGHT.get(name, 4) + draw, 7) for draw in (0, 1)])) / 10

    assert {family: by_k["5"]["mean"] for family, by_k in found.items()} == pytest.approx(
        {
            "near in time": right(REFERENCE) - right("no_near"),
            "self-supervised": right(REFERENCE) - right("no_self"),
            "multimodal": right("no_self") - right("near"),
        }
    )


def test_ranks_and_the_critical_difference_are_those_of_the_literature() -> None:
    """q of Demsar 2006, table 5 (a), and ranks by hand."""
    for competitors, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        wanted = q * np.sqrt(competitors * (competitors + 1) / (6 * 7))
        assert critical_difference(competitors, 7) == pytest.approx(wanted, abs=1e-3)
    scores = {"a": [0.2, 0.1, 0.3, 0.2], "b": [0.9, 0.8, 0.7, 0.9], "c": [0.9, 0.7, 0.6, 0.8]}
    found = rank_competitors(scores)
    assert found is not None
    assert found.mean == {"b": 1.125, "c": 1.875, "a": 3.0}
    assert list(found.mean) == ["b", "c", "a"]
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*scores.values()).pvalue)
    assert found.groups() == [["b", "c"], ["c", "a"]]  # 1.66 apart
    assert rank_competitors({"a": [1, 2], "b": [1, 2], "c": [2, 1]}) is None


def test_several_tasks_are_compared_and_splits_of_one_are_pooled(tmp_path: Path) -> None:
    arms = {"pretrained": 7, "features": 5, "random": 3}
    tasks = {name: made_up(arms, ("5", "10"), data=name) for name in ("one", "two", "three")}
    page = render_comparison(tasks)
    text = page["report.md"]
    assert "Evaluations of 3 tasks" in text
    assert "frozen + linear has the lowest mean rank, 1.00, over 3 tasks" in text
    assert "| random weights + linear | 42.5" in text and "| 3.00 |" in text
    assert page.keys() > {"report.html", "report_figures/rank.svg", "report_figures/gain.svg"}
    two = {str(split): made_up(arms, ("5",), splits=(split,)) for split in (1, 2)}
    compare_results(two, tmp_path)
    assert (tmp_path / "few_shot.json").is_file()
    del tasks["one"]["few_shot"]["5"], tasks["two"]["few_shot"]["10"]
    with pytest.raises(ValueError, match="no number of labels was measured in all of one, two"):
        render_comparison(tasks)
