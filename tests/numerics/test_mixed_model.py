"""The mixed model against the analysis of variance of a table of people and draws, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from primus_scale.evaluate.mixed_model import mixed_gain


def table(seed: int, people: int, draws: int, person_sd: float, draw_sd: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = (
        person_sd * rng.normal(size=(people, 1)),
        draw_sd * rng.normal(size=(1, draws)),
        0.04 * rng.normal(size=(people, draws)),
    )
    return 0.1 + sum(parts)


def of_table(gains: np.ndarray) -> dict[str, float]:
    people, draws = gains.shape
    person, draw = np.meshgrid(np.arange(people), np.arange(draws), indexing="ij")
    found = mixed_gain(gains.ravel(), person.ravel().astype(str), draw.ravel().astype(str))
    assert found is not None
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_a_full_table_it_is_the_analysis_of_variance(seed: int) -> None:
    """Mean squares of a two-way table without replication (Searle et al. 1992, section 4.3)."""
    gains, people, draws = table(seed, 8, 6, 0.06, 0.05), 8, 6
    mean, of_person, of_draw = gains.mean(), gains.mean(axis=1), gains.mean(axis=0)
    left = gains - of_person[:, None] - of_draw[None] + mean
    squares = {
        "person": draws * ((of_person - mean) ** 2).sum() / (people - 1),
        "draw": people * ((of_draw - mean) ** 2).sum() / (draws - 1),
        "left": (left**2).sum() / ((people - 1) * (draws - 1)),
    }
    error = np.sqrt((squares["person"] + squares["draw"] - squares["left"]) / gains.size)
    found = of_table(gains)
    assert found["mean"] == pytest.approx(mean)
    assert found["high"] - mean == pytest.approx(stats.t.ppf(0.975, people - 1) * error, rel=1e-3)
    assert found["high"] - mean == pytest.approx(mean - found["low"])
    person_sd = np.sqrt((squares["person"] - squares["left"]) / draws)
    draw_sd = np.sqrt((squares["draw"] - squares["left"]) / people)
    assert found["person_sd"] == pytest.approx(person_sd, rel=1e-2)
    assert found["draw_sd"] == pytest.approx(draw_sd, rel=1e-2)
    assert found["residual_sd"] == pytest.approx(np.sqrt(squares["left"]), rel=1e-2)


def test_parts_that_are_not_there_do_not_keep_it_from_an_answer() -> None:
    for seed in range(8):
        gains = table(seed, 7, 4, 0.0, 0.0)
        found = of_table(gains)
        assert found["mean"] == pytest.approx(gains.mean(), abs=1e-6)
        error = 0.04 / np.sqrt(gains.size)  # with the true deviation and no other part
        assert 0.4 < (found["high"] - found["mean"]) / (2.447 * error) < 3
        assert found["person_sd"] < 0.03 and found["draw_sd"] < 0.03


def test_without_a_spread_of_people_and_draws_there_is_none() -> None:
    names = ["a", "b", "c"]
    assert mixed_gain(np.array([0.1, 0.2, 0.3]), names, ["0"] * 3) is None
    assert mixed_gain(np.array([0.1, 0.2, 0.3]), ["a"] * 3, ["0", "1", "2"]) is None
    assert mixed_gain(np.full(3, 0.1), names, ["0", "1", "1"]) is None
