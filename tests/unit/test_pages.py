"""Pages from templates: escaped, whole in one file, and part of what is installed."""

import base64
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jinja2
import pytest
from matplotlib.figure import Figure

from primus_scale.monitor.drawing import as_svg
from primus_scale.monitor.page import render_page
from tests.odd_names import ODD_NAMES

ROOT = Path(__file__).parents[2]
PAGE = """{% extends "page.html" %}
{% block title %}{{ name }}{% endblock %}
{% block body %}
<h1>{{ self.title() }}</h1>
<img alt="{{ name }}" src="{{ figure | picture }}">
<p>{{ count | number(",.1f") }}</p>
{% endblock %}
"""


def figure_of(name: str) -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().set_title(name)
    return figure


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "package_of_pages"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "templates" / "some.html").write_text(PAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.name


def test_what_a_page_is_given_is_escaped_and_in_it(package: str) -> None:
    name = "what \"it\" <b>shows</b> & 'more'"
    page = render_page(package, "some.html", name=name, figure=figure_of("$a"), count=1234.56)
    told = "what &#34;it&#34; &lt;b&gt;shows&lt;/b&gt; &amp; &#39;more&#39;"
    assert f"<title>{told}</title>" in page
    assert f"<h1>{told}</h1>" in page
    assert f'<img alt="{told}" src="data:image/svg+xml;base64,' in page
    assert "<p>1,234.6</p>" in page
    (data,) = re.findall(r"base64,([^\"]+)", page)
    assert base64.b64decode(data) == as_svg(figure_of("$a"))
    assert page.startswith("<!doctype html>\n")
    assert page.count("<style>") == page.count("</html>\n") == 1


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_can_stand_in_a_page(package: str, name: str) -> None:
    page = render_page(package, "some.html", name=name, figure=figure_of("a"), count=0)
    assert "<b>bold</b>" not in page


def test_a_name_that_is_not_given_is_an_error(package: str) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        render_page(package, "some.html", figure=figure_of("a"), count=0)


def test_what_is_installed_holds_all_templates(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    templates = {
        path.relative_to(ROOT)
        for package in ("primus_scale", "shards", "launch")
        for path in (ROOT / package).rglob("templates/*.*")
    }
    assert {"page.html", "report.html", "report.md", "card.html"} <= {p.name for p in templates}
    built = tmp_path / "lib"
    assert {path.relative_to(built) for path in built.rglob("templates/*.*")} == templates
    for path in templates:
        found = resources.files(".".join(path.parent.parent.parts)) / "templates" / path.name
        assert found.read_bytes() == (built / path).read_bytes()
