"""Look at a page in headless Chromium, as wide as a screen or a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import require

# In a frame, since a window of Chromium cannot be as narrow as a phone.
_FRAME = '<body><iframe width="{width}" height="900" srcdoc="{page}"></iframe>'
_MEASURE = """<script>
window.onload = () => {
  const measure = frame => {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    const box = e => { const r = e.getBoundingClientRect();
                       return [r.left, r.top, r.right, r.bottom].map(Math.round); };
    const all = [...page.body.querySelectorAll("*")];
    const blocks = [...page.body.children].filter(e => e.offsetHeight).map(box);
    return {
      width: width,
      outside: all.filter(e => !e.closest(".scroll") || e.matches(".scroll"))
                  .filter(e => box(e)[2] > width || box(e)[0] < 0)
                  .map(e => e.outerHTML.slice(0, 80)),
      scrolling: [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth)
                 .length,
      overlapping: blocks.slice(1).filter((b, i) => b[1] < blocks[i][3]).length,
      pictures: [...page.images].map(e => ({alt: e.alt, drawn: e.naturalWidth, box: box(e)})),
      small: Math.min(...all.map(e => parseFloat(getComputedStyle(e).fontSize))),
    };
  };
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.body.innerText = "MEASURED" + JSON.stringify(found) + "END";
};
</script>"""


def check_page(page: str, folder: Path, least_height: int = 100) -> list[dict[str, Any]]:
    """Nothing of a page is cut or overlaps on a screen and on a phone; returns what they look like.

    Charts must be 200 pixels wide and ``least_height`` high; pictures called frames may be smaller.
    """
    looks = measure_page(page, (1200, 390), folder)
    for seen in looks:
        assert seen["outside"] == []
        assert seen["overlapping"] == 0
        assert seen["small"] >= 11
        for picture in seen["pictures"]:
            left, top, right, bottom = picture["box"]
            assert picture["drawn"] > 0, picture["alt"]
            least = (60, 60) if "frame" in picture["alt"] else (200, least_height)
            assert right - left > least[0] and bottom - top > least[1], picture
    assert looks[0]["scrolling"] == 0
    return looks


def measure_page(page: str, widths: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    """For each width, in pixels, what the page looks like there.

    ``outside``: elements that reach out of the window, tables that scroll in their box aside;
    ``scrolling``: how many of those there are; ``overlapping`` blocks; ``pictures`` with their
    boxes (left, top, right, bottom); ``small``: the smallest letters, in pixels.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    require(browser, "Chromium is not installed")
    frames = [_FRAME.format(width=width, page=html.escape(page)) for width in widths]
    file = folder / "frames.html"
    file.write_text("".join([*frames, _MEASURE]), encoding="utf-8")
    command = [
        str(browser),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"),
        file.as_uri(),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall("MEASURED(.*)END", ended.stdout, flags=re.DOTALL)
    measured: list[dict[str, Any]] = json.loads(html.unescape(found.replace("<br>", "")))
    return measured
