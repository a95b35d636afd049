"""The benchmarks run, at the smallest sizes: what they print and write is whole, if not fast."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ingest, reading, recall, roofline, step
from tests.recordings import recording_path


def read(path: Path) -> dict[str, Any]:
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["machine"]
    assert figures["environment"]["packages"]["torch"]
    return figures


def test_the_step_is_measured_against_its_encoder(tmp_path: Path, capsys) -> None:
    file = tmp_path / "step.json"
    sizes = ["--batch", "8", "16", "--rounds", "1", "--steps", "1"]
    assert step.main([*sizes, "--json", str(file)]) == 0
    figures = read(file)
    assert [row["batch"] for row in figures["rows"]] == [8, 16]
    for row in figures["rows"]:
        ratio = row["encoder_windows_per_s"] / row["step_windows_per_s"]
        assert row["cost"] == pytest.approx(ratio), "one round: its ratio is that of the medians"
    assert "whole step" in capsys.readouterr().out


def test_a_step_with_a_term_more_is_measured_against_the_paper_s(tmp_path: Path, capsys) -> None:
    file = tmp_path / "step.json"
    sizes = ["--batch", "32", "--rounds", "1", "--steps", "1", "--encoder", "conv_stats"]
    assert step.main([*sizes, "--terms", "imu_near", "imu_signal", "--json", str(file)]) == 0
    (row,) = read(file)["rows"]
    assert row["term_cost"].keys() == {"imu_near", "imu_signal"}
    assert f"with imu_near: {row['term_cost']['imu_near']:.3f}" in capsys.readouterr().out


def test_both_orders_of_reading_read_all_windows(tmp_path: Path, capsys) -> None:
    file = tmp_path / "reading.json"
    sizes = ["--blocks", "4", "--rounds", "1", "--batch", "128", "--url", str(tmp_path / "shards")]
    assert reading.main([*sizes, "--json", str(file)]) == 0
    figures = read(file)
    (mixed,), (sessions,) = figures["speeds"]["mixed"], figures["speeds"]["sessions"]
    assert figures["ratio"]["cpu"] == pytest.approx(sessions["cpu"] / mixed["cpu"])
    assert "sessions / mixed" in capsys.readouterr().out


def test_the_windows_of_a_recording_are_counted_while_they_are_timed(tmp_path: Path) -> None:
    file, ride = tmp_path / "ingest.json", recording_path("gopro_max_hero.mp4")
    arguments = [f"gopro={ride}", "--window-s", "0.2", "--rounds", "1", "--json", str(file)]
    assert ingest.main(arguments) == 0
    (row,) = read(file)["rows"]
    assert row["device_minutes"] == pytest.approx(10.5 / 60, rel=0.02), "as docs/benchmarks.md says"
    assert 0 < row["windows"] <= 10.5 / 0.2
    assert sum(row["share"].values()) == pytest.approx(1)
    assert all(share > 0 for share in row["share"].values())


def test_recall_of_an_index_is_a_line_for_each_size(capsys) -> None:
    assert recall.main(["--entries", "200", "4000", "--batch", "64"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["entries"] for row in rows] == [200, 4000]
    assert all(0.9 < row["recall_near"] <= 1 for row in rows)


def test_operations_of_an_encoder_are_counted(tmp_path: Path, capsys) -> None:
    file = tmp_path / "roofline.json"
    sizes = ["--encoder", "conv_stats", "--batch", "4", "--rounds", "1"]
    assert roofline.main([*sizes, "--json", str(file)]) == 0
    product, encoder = (row["gflop"] for row in read(file)["rows"])
    assert product == pytest.approx(2 * 2048**3 / 1e9)
    # Six channels and as many by gravity. Inputs, outputs, kernel and length of each convolution;
    # then the linear layers. The gradients of weights and of inputs take as much each, but the
    # input of the first convolution has none.
    first, *others = (12, 32, 9, 125), (32, 48, 5, 63), (48, 64, 5, 32), (64, 96, 5, 32)
    linear = 2 * (12 + 32 + 48 + 64 + 96) * 512 + 512 * 256
    forward_of_others = sum(i * o * k * t for i, o, k, t in others) + linear
    operations = 2 * 4 * (2 * math.prod(first) + 3 * forward_of_others)
    assert encoder == pytest.approx(operations / 1e9)
    assert "GB/s" in capsys.readouterr().out
