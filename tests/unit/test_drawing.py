"""Texts of data in figures: drawn as they are written."""

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from primus_scale.monitor.drawing import as_pixels, as_svg, shown
from primus_scale.monitor.page import explain_failed_page
from primus_scale.monitor.pictures import confusion_chart, draw_similarity
from tests.odd_names import ODD_NAMES


def figure_of(*names: str, log: bool = False) -> Figure:
    """The names at every place where a figure has text."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    axis.plot(range(1, len(names) + 1), range(1, len(names) + 1), label="line")
    axis.set_xticks(range(1, len(names) + 1), names)
    axis.set_title(names[0])
    axis.set_ylabel(names[-1])
    axis.annotate(names[0], (1, 1))
    axis.legend(title=names[0])
    if log:
        axis.set_yscale("log")
    return figure


@pytest.mark.parametrize("name", ["$x$", "a$b$c", r"$\frac$", "$", "$$", r"\alpha_b^c", "x_1"])
def test_what_looks_like_a_formula_is_drawn_letter_by_letter(name: str) -> None:
    with_escapes = name.replace("$", r"\$")  # matplotlib's own way to write a dollar sign
    drawn = as_pixels(figure_of(name))
    canvas = FigureCanvasAgg(figure_of(with_escapes))
    canvas.draw()
    np.testing.assert_array_equal(drawn, np.asarray(canvas.buffer_rgba())[..., :3])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_gives_a_picture_and_valid_xml_without_a_warning(name: str) -> None:
    assert as_pixels(figure_of(shown(name) or "none")).std() > 0
    ElementTree.fromstring(as_svg(figure_of(shown(name) or "none")))
    classes = [name, "walking"]
    ElementTree.fromstring(as_svg(confusion_chart(np.eye(2), classes, shown(name))))


def test_letters_that_the_font_lacks_are_left_to_the_readers_fonts() -> None:
    svg = as_svg(figure_of("歩行", "walking")).decode()
    assert ">歩行</text>" in svg
    assert "<text" not in as_svg(figure_of("walking")).decode(), "ours are drawn as shapes"


def test_labels_that_drawing_adds_are_no_formulas_either() -> None:
    svg = as_svg(figure_of("歩", *"abc", log=True)).decode()
    assert "mathdefault" not in svg
    assert ">1</text>" in svg


def test_equal_figures_give_equal_bytes() -> None:
    assert as_svg(figure_of("$a", "歩")) == as_svg(figure_of("$a", "歩"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left wrist", "left wrist"),
        ("a\n b\t\x07c", "a b c"),
        ("x" * 41, "x" * 39 + "…"),
        ("歩" * 21, "歩" * 19 + "…"),
        ("歩" * 20, "歩" * 20),
        ("a" * 30 + " " + "b" * 30, "a" * 30 + " " + "b" * 8 + "…"),
        ("\u200b", ""),
        (7, "7"),
    ],
)
def test_names_are_shown_in_one_short_line(name: object, expected: str) -> None:
    assert shown(name) == expected


def test_names_of_terms_in_pictures_of_a_run() -> None:
    import torch

    rows = torch.eye(4)
    assert draw_similarity(rows, rows, "$imu_video").shape[-1] == 3


@pytest.mark.parametrize("error", [RuntimeError("\n\nParseError\n  ^"), KeyError(), ValueError()])
def test_a_page_that_fails_is_one_line_that_names_the_results(error: Exception) -> None:
    with (
        pytest.raises(ValueError, match=r"^out/a\.html could not be drawn \(.*\); the r") as caught,
        explain_failed_page("out/a.html", "out/a.json"),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert str(caught.value).endswith("the results are in out/a.json")
