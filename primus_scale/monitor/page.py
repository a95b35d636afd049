"""HTML pages that need no other file: style, tables, and figures as pictures in the text."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure

from primus_scale.monitor.drawing import as_svg

MOST_REASON = 300  # letters of an error

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #212529; background: #fff;
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
.lead { font-size: 1.12rem; } .quiet { color: #5c636a; font-size: .92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid #dee2e6;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #868e96; font-weight: 600; }
td small { color: #5c636a; } td.best { font-weight: 700; background: #f1f6ff; }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px;
       margin-right: .5rem; vertical-align: baseline; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; } .grid img { flex: 1 1 20rem; min-width: 0; }
img { max-width: 100%; height: auto; }
h1, p, li { overflow-wrap: anywhere; }
li { margin: .3rem 0; } code { font-size: .9em; }
"""


def render_page(title: str, sections: Iterable[str], style: str = "") -> str:
    """A whole page of HTML sections; ``style`` is added to that of all pages."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


@contextmanager
def explain_failed_page(place: str, results: str) -> Iterator[None]:
    """Turn whatever goes wrong while a page is drawn into one ValueError.

    It names the page's place, and that of the results, which were written before.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{place} could not be drawn ({reason[:MOST_REASON]}); the results are in {results}"
        ) from error


def scrolling_table(rows: str) -> str:
    """Rows of HTML as a table that scrolls sideways on a narrow screen."""
    return f'<div class="scroll"><table>{rows}</table></div>'


def as_image(figure: Figure, text: str) -> str:
    """The figure as an HTML image that needs no other file; ``text`` describes it."""
    return embed_image(as_svg(figure), "image/svg+xml", text)


def embed_image(data: bytes, kind: str, text: str) -> str:
    """An encoded picture of MIME type ``kind`` as an HTML image."""
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(text)}" src="data:{kind};base64,{encoded}">'
