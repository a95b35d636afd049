"""Draw charts of matplotlib whose texts come from data and may hold any character.

matplotlib reads a text between dollar signs as a formula, and has the letters of one font only.
Names of labels, people and placements may hold any character. So every chart is drawn by
``as_svg`` or ``as_pixels``, and names are added to it by ``shown``.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

# Widths of a chart in inches, for screens and print, and for phones, where a wide chart would be
# too small to read.
WIDE, NARROW = 9.6, 3.8
MOST_LETTERS = 40  # of a name in a chart; longer names would leave no space for the curves


def shown(text: object, most: int = MOST_LETTERS) -> str:
    """A name in one line, as wide as ``most`` letters; what cannot be printed becomes a space.

    Letters of Chinese, Japanese and Korean, and pictures such as emoji, count for two.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    ends = list(accumulate(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line))
    if not ends or ends[-1] <= most:
        return line
    return f"{line[: sum(end < most for end in ends)].rstrip()}…"


def style_axis(axis: Axes, grid: Literal["x", "y"]) -> None:
    """Give a plot lines across ``grid``, and a frame at the left and below only."""
    axis.grid(axis=grid, color="#dee2e6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def as_svg(chart: Figure) -> bytes:
    """The chart as SVG. Equal charts give equal bytes."""
    with _as_written(chart) as texts:
        # Letters that our font does not have are drawn with the reader's fonts.
        font_type = "none" if _have_foreign_letters(texts) else "path"
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "primus-scale", "svg.fonttype": font_type}):
            # ``savefig`` would draw it twice, first for the layout alone.
            FigureCanvasSVG(chart).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def as_pixels(chart: Figure) -> np.ndarray:
    """The chart as uint8 ``(height, width, 3)``; a letter that the font lacks is a box."""
    with _as_written(chart):
        canvas = FigureCanvasAgg(chart)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class TwoWidths(NamedTuple):
    """A chart as SVG for screens and print, and the same for phones."""

    wide: bytes
    narrow: bytes


def two_widths(draw: Callable[..., Figure], *shown: Any) -> TwoWidths:
    """Both, drawn by ``draw(*shown, width=...)``."""
    return TwoWidths(*(as_svg(draw(*shown, width=width)) for width in (WIDE, NARROW)))


@contextmanager
def _as_written(chart: Figure) -> Iterator[list[Text]]:
    """In the block no text of the chart is read as a formula, and missing letters do not warn.

    Yields the texts that the chart has before it is drawn.
    """
    both = [axis for axes in chart.axes for axis in (axes.xaxis, axes.yaxis)]
    for axis in both:
        if isinstance(axis.get_major_formatter(), LogFormatter):  # it writes formulas
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    # Existing texts here; the setting is for texts that drawing will add, such as labels of ticks.
    texts = [one for one in chart.findobj(Text) if isinstance(one, Text)]
    texts += [label for axis in both for label in axis.get_ticklabels(which="both")]
    for text in texts:
        text.set_parse_math(False)
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield texts


def _have_foreign_letters(texts: Iterable[Text]) -> bool:
    """Whether one of the texts has a letter that is not in our font."""
    letters = {letter for text in texts for letter in text.get_text()}
    font = get_font(findfont(FontProperties()))
    return any(not one.isspace() and not font.get_char_index(ord(one)) for one in letters)
