"""The examples run: a stream in its time, the notebook whole, and EMG, made up and real."""

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.io

from examples import emg
from examples.make_recordings import ACTIVITIES, write_recordings
from examples.stream import main as stream
from examples.stream import replay
from primus_scale.cli import main as primus_scale
from tests.documents import ROOT
from tests.few_shot_task import few_penalties  # noqa: F401

PEOPLE, SECONDS = 10, 20
SHARED = ("--may-share", "people")  # parts of one recording stand for people


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


def write_like_openhdemg(file: Path, seconds: int = 30, rate_hz: int = 2048) -> Path:
    """A file of the layout that the example reads: noise that grows with a force."""
    rng = np.random.default_rng(0)
    time_s = np.arange(seconds * rate_hz) / rate_hz
    force = np.interp(time_s, [0, 7, seconds - 7, seconds], [1.0, 26.0, 26.0, 1.0])
    noise_uv = (5 + 6 * force)[:, None] * rng.standard_normal((len(force), 64))
    names = [f"Vastus Lateralis ({number + 1})[uV]" for number in range(64)]
    boxes = {name: np.empty((1, 1), dtype=object) for name in ("Data", "Time")}
    boxes["Data"][0, 0] = np.column_stack([noise_uv, force]).astype(np.float32)
    boxes["Time"][0, 0] = time_s[:, None]
    described = np.empty((65, 1), dtype=object)
    described[:, 0] = [np.array([name]) for name in [*names, "acquired data[ %(MVC)]"]]
    scipy.io.savemat(
        file, {**boxes, "Description": described, "SamplingFrequency": np.uint16([[rate_hz]])}
    )
    return file


@pytest.mark.usefixtures("few_penalties")
@pytest.mark.parametrize("source", ["made up", "openhdemg"])
def test_levels_of_force_are_told_from_emg(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, shards, out = (str(tmp_path / name) for name in ("raw", "shards", "out"))
    given = []
    if source == "made up":
        given = ["--file", str(write_like_openhdemg(tmp_path / "otb_testfile.mat"))]
    elif find_spec("openhdemg") is None:
        pytest.skip("openhdemg is not installed, whose test file this is of")
    assert emg.main([raw, *given]) == 0
    build = ["shards", "build", "folder", "--src", raw, "--out", shards]
    assert primus_scale([*build, "--frames", "0", "--workers", "1"]) == 0
    assert "144 windows, 0 refused" in capsys.readouterr().out
    task = "task={test: [openhdemg-fall-1, openhdemg-fall-2, openhdemg-fall-3]}"
    settings = ["k=[5]", "draws=2", "trained_draws=1", "steps=20", "lrs=[1.0e-3]", "threads=1"]
    arms = ["arms=[pretrained_finetuned, scratch]", "own={hudgins: 'examples.emg:features'}"]
    command = ["evaluate", "--encoder", "demo", "--data", shards, "--out", out]
    assert primus_scale([*command, "adapt=true", task, *settings, *arms, *SHARED]) == 0
    printed = capsys.readouterr().out
    assert "input made anew for emg_1, emg_5, " in printed
    assert "on 3 people (who may be those of the labels under other names: may_share)" in printed
    results = json.loads((tmp_path / "out/few_shot.json").read_text())
    accuracy = {one["arm"]: one["accuracy"] for one in results["records"] if one["draw"] == 0}
    assert set(accuracy) == {"pretrained_finetuned", "scratch", "hudgins"}
    assert accuracy["hudgins"] > 0.6
    assert min(accuracy.values()) > 0.34  # a third is chance


def test_another_file_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none.mat is missing; pip install --no-deps openhdemg"):
        emg.main([str(tmp_path / "raw"), "--file", str(tmp_path / "none.mat")])
    file = write_like_openhdemg(tmp_path / "slow.mat", rate_hz=1000)
    with pytest.raises(SystemExit, match=r"slow.mat has 64 channels in uV at 1000 Hz"):
        emg.main([str(tmp_path / "raw"), "--file", str(file)])
