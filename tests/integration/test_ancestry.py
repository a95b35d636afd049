"""What counts as a launcher, and how a rank ends that cannot stop when it is gone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launch.ancestry import stop_with_launcher

ROOT = Path(__file__).parents[2]
TELL_LAUNCHER = "from launch.ancestry import LAUNCHER; print([each.pid for each in LAUNCHER])"
START_CHILD = f"""
import os, subprocess, sys
print(os.getpid(), flush=True)
subprocess.run([sys.executable, "-c", {TELL_LAUNCHER!r}], check=True)
"""
BLOCK = """
import sys, time, psutil
from launch.ancestry import stop_with_launcher
with stop_with_launcher(75, [psutil.Process(int(sys.argv[1]))], grace_s=0.2):
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("name", "watched"), [("deepspeed", True), ("nightly.py", False)])
def test_only_launchers_count(tmp_path: Path, name: str, watched: bool) -> None:
    (tmp_path / name).write_text(START_CHILD, encoding="utf-8")
    # The shell above starts it, and mentions the launcher's name; it may end before the run does.
    command = f"{sys.executable} {tmp_path / name} --num_gpus 2 launch/deepspeed_train.py; true"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=searching_here(), capture_output=True, text=True
    )
    parent, launcher = done.stdout.splitlines()
    assert launcher == (f"[{parent}]" if watched else "[]"), done.stderr


def test_rank_that_cannot_stop_ends(launcher: subprocess.Popen[bytes]) -> None:
    command = [sys.executable, "-c", BLOCK, str(launcher.pid)]
    with subprocess.Popen(
        command, cwd=ROOT, env=searching_here(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == b"begun\n"
        launcher.kill()
        _, said = rank.communicate(timeout=60)
    assert rank.returncode == 75
    assert b"launcher is gone; stopping after a checkpoint" in said
    assert b"could not stop within 0.2 s" in said


def test_rank_is_asked_to_stop_first(launcher: subprocess.Popen[bytes]) -> None:
    with stop_with_launcher(75, [psutil.Process(launcher.pid)]) as stop:
        assert not stop.wait(1.5)
        launcher.kill()  # a zombie from now on
        assert stop.wait(60)


@pytest.fixture
def launcher() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def searching_here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
