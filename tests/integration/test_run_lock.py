"""A second run on an output folder is refused; one that was killed makes way for the next."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from primus_scale import run_lock
from primus_scale.run_lock import LOCK_FILE, only_run
from primus_scale.trainer import pretrain
from tests.integration.tiny import (
    LAUNCHER,
    ROOT,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)


@contextmanager
def held(folder: Path, machine: str = "here") -> Iterator[subprocess.Popen[str]]:
    """A process with the lock of ``folder``."""
    command = [sys.executable, "-m", "tests.run_lock_holder", str(folder), machine]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, a holder elsewhere counts as dead after some of its beats, of a second each."""
    monkeypatch.setattr(run_lock, "STALE_S", 4.0)
    monkeypatch.setattr(run_lock, "ENDING_S", 0.5)


def test_second_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards")
    config = tiny_config(output, shards, "train.steps=100000", "train.pictures_every=100000")
    file = str(write_config(config, tmp_path / "run.yaml"))
    first = start_ranks(1, LAUNCHER, "--config", file)
    try:
        wait_until((output / "metrics.jsonl").is_file)
        second = start_ranks(2, LAUNCHER, "--config", file)
        for rank in second:
            said = rank.communicate(timeout=120)[0]
            holder = rf"{socket.gethostname()} \(pid {first[0].pid}, since 2\d\d\d-"
            assert re.search(rf"error: {output} is in use by a run on {holder}", said), said
            assert "Traceback" not in said
        assert [rank.returncode for rank in second] == [1, 1]
        assert first[0].poll() is None
        first[0].kill()
        killed = time.monotonic()
        third = start_ranks(1, LAUNCHER, "--config", file)
        wait_until(lambda: f'"pid": {third[0].pid}' in lock_text(output))
        print(f"its own restart held the folder {time.monotonic() - killed:.1f} s after the kill")
        third[0].send_signal(signal.SIGTERM)
        assert wait_for(third) == [os.EX_TEMPFAIL]
    finally:
        wait_for(first)
    assert not (output / LOCK_FILE).exists(), "released"


def lock_text(output: Path) -> str:
    file = output / LOCK_FILE
    return file.read_text() if file.is_file() else ""


def test_killed_holder_on_this_machine_makes_way_at_once(tmp_path: Path) -> None:
    with held(tmp_path) as holder:
        holder.kill()
        holder.wait()
        start = time.monotonic()
        with only_run(tmp_path):
            assert time.monotonic() - start < 2


@pytest.mark.usefixtures("quick")
def test_holder_on_another_machine_is_known_by_its_beats(tmp_path: Path) -> None:
    with held(tmp_path, "another-machine") as holder:
        with pytest.raises(OSError, match=rf"in use by a run on .*pid {holder.pid}"):
            run_lock.RunLock(tmp_path).acquire()
        holder.kill()
        holder.wait()
        # Whatever the clock of the other machine said: only changes count.
        os.utime(tmp_path / LOCK_FILE, (4e9, 4e9))
        start = time.monotonic()
        with only_run(tmp_path):
            assert time.monotonic() - start > run_lock.STALE_S
            assert f'"pid": {os.getpid()}' in lock_text(tmp_path)


@pytest.mark.usefixtures("quick")
def test_run_that_was_halted_too_long_ends_when_it_wakes(tmp_path: Path) -> None:
    with held(tmp_path, "another-machine") as holder:
        holder.send_signal(signal.SIGSTOP)
        with only_run(tmp_path):
            holder.send_signal(signal.SIGCONT)
            assert holder.wait(timeout=30) == 1
            assert f'"pid": {os.getpid()}' in lock_text(tmp_path)


def test_run_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError):
        pretrain(config)
    assert not (tmp_path / LOCK_FILE).exists()
