"""Draw figures of matplotlib whose texts come from data and may hold any character.

matplotlib reads a text between dollar signs as a formula, and has the letters of one font only.
Names of labels, people and placements may hold any character. So every figure is drawn by
``as_svg`` or ``as_pixels``, and names are added to it by ``shown``.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import matplotlib
import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

MOST_LETTERS = 40  # of a name in a figure; longer names would leave no space for the curves


def shown(text: object, most: int = MOST_LETTERS) -> str:
    """A name in one line, as wide as ``most`` letters; what cannot be printed becomes a space.

    Letters of Chinese, Japanese and Korean, and pictures such as emoji, count for two.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    ends = list(accumulate(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line))
    if not ends or ends[-1] <= most:
        return line
    return f"{line[: sum(end < most for end in ends)].rstrip()}…"


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG. Equal figures give equal bytes."""
    with _as_written(figure):
        # Letters that our font does not have are drawn with the reader's fonts.
        font_type = "none" if _has_foreign_letters(figure) else "path"
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "primus-scale", "svg.fonttype": font_type}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_pixels(figure: Figure) -> np.ndarray:
    """The figure as uint8 ``(height, width, 3)``; a letter that the font lacks is a box."""
    with _as_written(figure):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@contextmanager
def _as_written(figure: Figure) -> Iterator[None]:
    """In the block no text of the figure is read as a formula, and missing letters do not warn."""
    for axis in _axes(figure):
        if isinstance(axis.get_major_formatter(), LogFormatter):  # it writes formulas
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    # Existing texts here; the setting is for texts that drawing will add, such as labels of ticks.
    for text in _texts(figure):
        text.set_parse_math(False)
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _axes(figure: Figure) -> list[Axis]:
    return [one for one in figure.findobj(Axis) if isinstance(one, Axis)]


def _texts(figure: Figure) -> list[Text]:
    labels = [label for axis in _axes(figure) for label in axis.get_ticklabels(which="both")]
    return [one for one in figure.findobj(Text) if isinstance(one, Text)] + labels


def _has_foreign_letters(figure: Figure) -> bool:
    """Whether a text of the figure has a letter that is not in our font."""
    letters = {letter for text in _texts(figure) for letter in text.get_text()}
    font = get_font(findfont(FontProperties()))
    return any(not one.isspace() and not font.get_char_index(ord(one)) for one in letters)
