"""A second run on an output folder is refused; one that was killed makes way for the next."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from primus_scale.distributed import run_lock
from primus_scale.distributed.only_run import only_run
from primus_scale.distributed.run_lock import LOCK_FILE
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    LAUNCHER,
    ROOT,
    errors_of,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)
from tests.shifted_clock import shifted_clock


@contextmanager
def held(
    folder: Path, machine: str = "here", variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[str]]:
    """A process with the lock of ``folder``."""
    command = [sys.executable, "-m", "tests.run_lock_holder", str(folder), machine]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, **pipes) as holder:
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
    (first,) = start_ranks(1, LAUNCHER, "--config", file)
    wait_until((output / "metrics.jsonl").is_file)
    holder = rf"{socket.gethostname()} \(pid {first.pid}, since 2\d\d\d-"
    for error in errors_of(start_ranks(2, LAUNCHER, "--config", file)):
        assert re.search(rf"error: {output} is in use by a run on {holder}", error), error
    assert first.poll() is None
    first.kill()
    killed = time.monotonic()
    (third,) = start_ranks(1, LAUNCHER, "--config", file)
    wait_until(lambda: f'"pid": {third.pid}' in lock_text(output))
    print(f"its own restart held the folder {time.monotonic() - killed:.1f} s after the kill")
    third.send_signal(signal.SIGTERM)
    assert wait_for([first, third]) == [-signal.SIGKILL, os.EX_TEMPFAIL]
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
@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_holder_on_another_machine_is_known_by_its_beats(tmp_path: Path, ahead_s: int) -> None:
    """Whatever the clock of the other machine says."""
    folder, clock = tmp_path / "out", shifted_clock(tmp_path, ahead_s)
    with held(folder, "another-machine", clock) as holder:
        with pytest.raises(OSError, match=rf"in use by a run on .*pid {holder.pid}"):
            run_lock.RunLock(folder).acquire()
        holder.kill()
        holder.wait()
        there = time.time() + ahead_s  # for a server of files may have that clock, too
        os.utime(folder / LOCK_FILE, (there, there))
        start = time.monotonic()
        with only_run(folder):
            assert time.monotonic() - start > run_lock.STALE_S
            assert f'"pid": {os.getpid()}' in lock_text(folder)


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
