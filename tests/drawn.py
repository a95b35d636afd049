"""Whether the texts of a chart lie on it: what is cut there, no browser can tell."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from primus_scale.monitor import drawing

_SVG_DPI = 72
_ROUNDING = 2  # pixels


@contextmanager
def watching_charts() -> Iterator[list[str]]:
    """In the block, texts that reach out of a chart that is drawn are added to the list."""
    cut: list[str] = []
    draw = drawing.as_svg

    def watched(chart: Figure) -> bytes:
        drawn = draw(chart)
        cut.extend(_cut_texts(chart))
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "as_svg", watched)
        yield cut


def _cut_texts(chart: Figure) -> Iterator[str]:
    chart.set_dpi(_SVG_DPI)  # at which matplotlib has laid it out
    renderer = FigureCanvasAgg(chart).get_renderer()
    ticks = {
        label for axis in chart.axes for label in (*axis.get_xticklabels(), *axis.get_yticklabels())
    }
    for text in chart.findobj(Text):
        if not isinstance(text, Text) or not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent(renderer)
        inside = chart.bbox.padded(_ROUNDING)
        fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
        if text not in ticks and not fits:
            yield f"{text.get_text()!r} of a chart {chart.get_figwidth()} inches wide"
