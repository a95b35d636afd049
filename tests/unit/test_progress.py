"""Progress of long work: one line on a terminal, lines elsewhere, no time left too early."""

import io
import sys

import pytest

from primus_scale.monitor.progress import ProgressLine
from shards.tasks import progress
from shards.tasks.progress import TaskProgress, print_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last number is the time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[-1])
    return now


def test_the_time_left_waits_and_leaves_out_the_start(clock: list[float]) -> None:
    """Workers take 30 s to start; then each recording takes 6 s."""
    lines: list[str] = []
    shown = TaskProgress("ingest", 10, "recordings", lines.append)
    for number in range(10):
        clock.append(130.0 + 6 * number)
        shown.add(note=f"{number} failed")
    assert lines[0] == "ingest  1 of 10 recordings  0.033 recordings/s  0 failed"
    assert lines[1] == "ingest  2 of 10 recordings  0.17 recordings/s  48s left  1 failed"
    assert lines[8] == "ingest  9 of 10 recordings  0.17 recordings/s  6s left  8 failed"
    assert lines[9] == "ingest  10 of 10 recordings  0.12 recordings/s  9 failed"


def test_a_small_share_in_a_short_time_gives_no_estimate(clock: list[float]) -> None:
    lines: list[str] = []
    shown = TaskProgress("write", 1000, "windows", lines.append)
    for time_s in (106.0, 112.0, 118.0):
        clock.append(time_s)
        shown.add(10)
    assert ["left" in line for line in lines] == [False, False, True]


def test_kept_results_are_no_rate(clock: list[float]) -> None:
    lines: list[str] = []
    shown = TaskProgress("embed", 4, "windows", lines.append)
    clock.append(110.0)
    shown.add(3, kept=True)
    clock.append(120.0)
    shown.add()
    assert lines[0] == "embed  3 of 4 windows  0 windows/s"
    assert lines[1] == "embed  4 of 4 windows  0.05 windows/s"


def test_on_a_terminal_one_line_changes(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = TaskProgress("write", 3, "windows", print_line)
    for number in range(3):
        clock.append(101.0 + number)
        shown.add()
        if number == 1:
            print_line("a note")
    text = terminal.getvalue()
    assert text.count("\n") == 2, "the note, and the end"
    assert text.count("\r") > 3
    *_, last = text.rstrip("\n").split("\r")
    assert last.startswith("write  3 of 3 windows  ")
    assert "\ra note\n" in text


def test_steps_of_training_give_no_time_left_at_first() -> None:
    log = io.StringIO()
    line = ProgressLine(20, log)
    for step in (1, 3, 6, 20):
        line.show(step, {"loss/total": 1.0, "speed/windows_per_s": 10.0})
    lines = log.getvalue().splitlines()
    assert [one.endswith("s left") for one in lines] == [False, False, True, False]
    assert lines[0] == "step 1/20 | total 1.000 | 10 windows/s"
