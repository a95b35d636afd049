"""The Python of every page runs, beside recordings and an encoder; the site has every page."""

import pkgutil
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from examples.make_recordings import RATE_HZ, write_recordings
from primus_scale import load_encoder
from tests.documents import PAGES, ROOT, blocks
from tests.documents_run import run_python
from tests.hub_server import Repository, hub_client, hub_server

# The page on own data is run whole, its commands too, in tests/integration/test_own_data.py.
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name != "own_data.md"]
PEOPLE, SECONDS = 5, 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: recordings, shards, and the encoder of a run."""
    folder = tmp_path_factory.mktemp("pages")
    write_recordings(folder / "recordings", PEOPLE, SECONDS)
    load_encoder("demo").save(folder / "runs/demo/encoder")
    (folder / "shards/rides").mkdir(parents=True)
    tarfile.open(folder / "shards/rides/shard-000000.tar", "w").close()
    return folder


@pytest.fixture
def hub(place: Path, tmp_path: Path) -> Iterator[None]:
    """A Hub with the encoder that the pages call OWNER/NAME."""
    with hub_server() as server, hub_client(server.url, tmp_path):
        repository = server.repositories["OWNER/NAME"] = Repository(private=False)
        files = {path.name: path.read_bytes() for path in (place / "runs/demo/encoder").iterdir()}
        repository.tags["REVISION"] = repository.add(files)
        yield


@pytest.fixture(scope="module")
def given(place: Path) -> dict[str, Any]:
    """What the pages call a reader's own: a recording, windows, labels, people."""
    tables = [pd.read_csv(file) for file in sorted((place / "recordings").glob("*.csv"))]
    signals = [table.iloc[:, 1:7].to_numpy() for table in tables]
    count = len(signals[0]) // (5 * RATE_HZ)
    cut = [one.reshape(count, 5 * RATE_HZ, 6).swapaxes(1, 2) for one in signals]
    labels = np.concatenate([table["activity"].to_numpy()[:: 5 * RATE_HZ] for table in tables])
    people = np.repeat(np.arange(PEOPLE), count)
    return {
        "array": signals[0],
        "windows": np.concatenate(cut),
        "labels": labels.astype(str),
        "people": people,
    }


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_of_a_page_runs(
    page: Path,
    place: Path,
    given: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if page.stem == "share":
        request.getfixturevalue("hub")
    monkeypatch.chdir(place)
    names = dict(given)
    for block in blocks(page, "python"):
        run_python(block, names)
    if page.stem == "encoders":
        assert len(names["scores"]) == 5 and names["scores"].mean() > 0.6
    if page.stem == "first_steps":
        assert names["out"].good.tolist() == [True] * 4
    if page.stem == "extend":
        assert len(names["made"]) == 4 * SECONDS // 5
        assert names["present"].tolist() == [True, False, True]


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"[\w/]+\.md", str(site["nav"]))
    assert len(set(listed)) == len(listed)
    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert set(listed) == there | {"index.md", "contributing.md"}  # README and CONTRIBUTING


def test_pages_of_the_api_name_what_is_there() -> None:
    pages = sorted((ROOT / "docs/api").glob("*.md"))
    names = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name
