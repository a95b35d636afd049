"""What the site's builder does beyond its configuration: README as home page, formulas, links.

README.md and CONTRIBUTING.md become pages. Blocks of ``math`` become pictures by matplotlib, so
that pages need no script from elsewhere. Links to files of the repository that are no pages lose
their target, since the site has nothing there.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.superfences import SuperFencesException

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
_INK = "#123456"  # that of the page takes its place
_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[\w-]+)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let blocks of ``math`` be drawn."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": formula}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_LINK.sub(_from_root, text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to pages, or nowhere."""
    return _LINK.sub(_from_docs, markdown)


def formula(source: str, *_: Any, **__: Any) -> str:
    """The SVG of a formula; SuperFencesException where matplotlib cannot read it."""
    figure = Figure(figsize=(0.01, 0.01))
    figure.text(0, 0, f"${' '.join(source.split())}$", fontsize=16, color=_INK)
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format="svg", bbox_inches="tight", transparent=True)
    except ValueError as error:  # any other error than this would leave the source on the page
        raise SuperFencesException(f"no formula: {source}") from error
    picture = drawn.getvalue().decode("utf-8").replace(_INK, "currentColor")
    picture = picture[picture.index("<svg") :]
    label = html.escape(source.strip(), quote=True)
    return f'<p role="img" aria-label="{label}">{picture}</p>'


def _from_root(link: re.Match[str]) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if target.startswith("docs/"):
        return f"[{text}]({target.removeprefix('docs/')}{anchor})"
    return f"[{text}]({PAGES[target]}{anchor})" if target in PAGES else text


def _from_docs(link: re.Match[str]) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if not target.startswith("../"):
        return link[0]
    page = PAGES.get(target.removeprefix("../"))
    return f"[{text}]({page}{anchor})" if page else text
