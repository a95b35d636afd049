"""The examples run: a stream in its time, and the notebook whole."""

import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from examples.make_recordings import ACTIVITIES, write_recordings
from examples.stream import main as stream
from examples.stream import replay
from tests.documents import ROOT

PEOPLE, SECONDS = 10, 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_recordings(folder / "recordings", PEOPLE, SECONDS)
    return folder


def test_a_stream_is_labelled_as_it_comes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(str(file) for file in (place / "recordings").glob("*.csv"))
    assert stream([files[0], "--examples", *files[1:4], "--speed", "1e6", "--hop-s", "2.5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    starts = [float(row[0]) for row in rows]
    assert starts == list(np.arange(0.0, 4 * SECONDS - 5 + 0.1, 2.5))
    within = [
        (start, row[2])
        for start, row in zip(starts, rows, strict=True)
        if start % SECONDS <= SECONDS - 5
    ]
    right = [label == list(ACTIVITIES)[int(start // SECONDS)] for start, label in within]
    assert len(right) == 28 and np.mean(right) > 0.8


def test_a_replay_keeps_time() -> None:
    began = time.monotonic()
    rows = list(replay(np.zeros((201, 6)), rate_hz=100.0, speed=5.0))
    assert len(rows) == 201
    assert time.monotonic() - began + 1e-3 >= 0.4


def test_the_notebook_runs_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells of code, one after the other, as a kernel would."""
    monkeypatch.chdir(place)
    notebook = json.loads((ROOT / "examples/own_data.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [], "clear the outputs before you commit"
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert len(plt.get_fignums()) == 3
    plt.close("all")
    assert names["windows"].shape == (PEOPLE * 4 * SECONDS // 5, 6, 500)
    assert names["accuracy"] > 0.9
    assert names["curve"][20] >= names["curve"][1] > 0.5
