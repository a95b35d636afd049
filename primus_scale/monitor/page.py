"""HTML pages that need no other file, from the templates in the folders ``templates``.

    render_page("shards.card", "card.html", urls=urls, rates=chart)

A template extends ``page.html`` (next to this module). It contains ``{{ rates | picture }}`` for a
chart of matplotlib, and ``{{ hours | number(",.1f") }}`` for a number. Values are escaped, and a
name without a value is an error.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from primus_scale.monitor.drawing import as_svg

MOST_REASON = 300  # letters of an error


def render_page(package: str, template: str, **shown: Any) -> str:
    """The page of a template in ``package``, as HTML.

    shown: values of the template's names. Errors are those of jinja2 and of matplotlib.
    """
    folders = [PackageLoader(package), PackageLoader("primus_scale.monitor")]
    environment = Environment(
        loader=ChoiceLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"picture": _picture, "number": format}
    return environment.get_template(template).render(shown)


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


def _picture(chart: Figure) -> str:
    return data_url(as_svg(chart), "image/svg+xml")
