"""HTML pages that need no other file, and Markdown, from templates in the folders ``templates``.

    render_page("shards.card", "card.html", urls=urls, rates=chart)

A template extends ``page.html`` (next to this module). It contains ``{{ rates | picture }}`` for a
chart of matplotlib, or its SVG, and ``{{ hours | number(",.1f") }}`` for a number. Values are
escaped, and a name without a value is an error. In Markdown a chart is a file of its own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from primus_scale.monitor.drawing import as_svg

MOST_REASON = 300  # letters of an error


def render_page(package: str, template: str, **shown: Any) -> str:
    """The page of a template in ``package``, as HTML.

    shown: values of the template's names. Errors are those of jinja2 and of matplotlib.
    """
    environment = _environment(package)
    environment.filters["picture"] = _picture
    return environment.get_template(template).render(shown)


def render_markdown(package: str, template: str, **shown: Any) -> str:
    """The Markdown of a template in ``package``; shown, errors: as ``render_page``."""
    environment = _environment(package, finalize=_as_markdown)
    text = environment.get_template(template).render(shown)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(package: str, **options: Any) -> Environment:
    folders = [PackageLoader(package), PackageLoader("primus_scale.monitor")]
    environment = Environment(
        loader=ChoiceLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters["number"] = format
    return environment


@contextmanager
def explain_failed_page(place: str, results: str) -> Iterator[None]:
    """Turn any error of drawing a page into a ValueError.

    It names the path of the page, and that of the results, which were written before.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{place} could not be drawn ({reason[:MOST_REASON]}); the results are in {results}"
        ) from error


def data_url(data: bytes, kind: str) -> str:
    """An encoded picture of MIME type ``kind`` as the source of an HTML image."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _as_markdown(value: Any) -> Markup:
    """A value in one line, with what Markdown would read as a mark as HTML entities.

    What a macro made is of the template, and stays.
    """
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split("\n"))
    marks = r"[&<|*`~]|(?<!\w)_|_(?!\w)"
    return Markup(re.sub(marks, lambda found: f"&#{ord(found.group())};", line))


def _picture(chart: Figure | bytes) -> str:
    return data_url(chart if isinstance(chart, bytes) else as_svg(chart), "image/svg+xml")
