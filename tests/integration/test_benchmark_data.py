"""The benchmark of reading runs, and says which libraries it did not find."""

import json
import subprocess
import sys

import pytest

from benchmarks.data import quartiles, ratio
from benchmarks.data_readers import READERS


def test_all_rows_and_figures(tmp_path):
    file = tmp_path / "data.json"
    sizes = ("--blocks", "2", "--rounds", "2", "--windows", "2000", "--records", "70000")
    command = [sys.executable, "-m", "benchmarks.data", *sizes, "--json", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(file.read_text())
    lines = [line.strip() for line in done.stdout.splitlines()]
    for reader in READERS:
        speeds = figures["windows_per_cpu_s"][reader.name]
        (line,) = (each for each in lines if each.startswith(f"{reader.name} "))
        assert ("not installed" in line) == reader.missing() == (not speeds)
        assert len(speeds) in (0, 2)
        assert all(speed > 0 for speed in speeds)
    starts = figures["starts"]
    assert starts["resume"]["windows"] >= 2000
    assert 0 < starts["resume"]["batch_cpu_s"] < 60
    assert starts["open, window records"]["windows"] == 70_000
    assert starts["epoch"]["mb_at_the_end"] > 0
    assert {"machine", "environment", "libraries"} <= figures.keys()


def test_ratios_are_of_rounds():
    assert ratio([1, 4, 9], [2, 2, 3]) == 2
    assert quartiles([5.0]) == (5, 5, 5)
    assert quartiles([1, 2, 3, 4, 5]) == pytest.approx((2, 3, 4))
