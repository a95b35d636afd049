"""Ranks of deepspeed and torchrun end with their launcher, after a checkpoint."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from tests.conftest import require
from tests.integration.tiny import (
    LAUNCHER,
    checkpoints,
    free_port,
    losses,
    said_by,
    start_ranks,
    started,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)

TWO_RANKS = {"deepspeed": ("--num_gpus", "2"), "torchrun": ("--nproc-per-node", "2")}
NOTICED = "its launcher is gone; stopping after a checkpoint"


@contextmanager
def launched(launcher: str, file: str) -> Iterator[Popen[str]]:
    """Two ranks of a launcher, all of whose processes end with the block, whatever happens."""
    program = Path(sys.executable).with_name(launcher)
    require(program.is_file(), f"the {launcher} command is not installed")
    options = (*TWO_RANKS[launcher], "--master_port", str(free_port()))
    run = (str(LAUNCHER), "--config", file, "train.steps=100000")
    with started(sys.executable, str(program), *options, *run) as process:
        try:
            yield process
        finally:
            for each in processes_of(file):  # torchrun's ranks are in sessions of their own
                with suppress(psutil.NoSuchProcess):
                    each.kill()


def processes_of(file: str) -> list[psutil.Process]:
    """Those that have the configuration in their command line: the launcher's, and ranks."""
    return [
        each for each in psutil.process_iter(["cmdline"]) if file in (each.info["cmdline"] or ())
    ]


@pytest.mark.parametrize(
    ("launcher", "part", "sent", "said"),
    [
        # SIGTERM ends the command, and nobody else; what it started tells the ranks' exit code.
        ("deepspeed", "command", signal.SIGTERM, (NOTICED, "exits with return code = 75")),
        ("deepspeed", "command", signal.SIGKILL, (NOTICED, "exits with return code = 75")),
        ("deepspeed", "process that started the ranks", signal.SIGKILL, (NOTICED,)),
        ("torchrun", "command", signal.SIGKILL, (NOTICED,)),
        ("torchrun", "command", signal.SIGTERM, ("closing signal SIGTERM",)),  # it hands it on
    ],
)
def test_ranks_do_not_outlive_their_launcher(
    tmp_path: Path, launcher: str, part: str, sent: signal.Signals, said: tuple[str, ...]
) -> None:
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards")
    options = ("train.pictures_every=100000", "optimizer.schedule=constant")
    file = str(write_config(tiny_config(output, shards, *options), tmp_path / "run.yaml"))
    with launched(launcher, file) as process:
        wait_until((output / "metrics.jsonl").is_file, timeout_s=240)
        command, family = psutil.Process(process.pid), processes_of(file)
        assert len(family) == (4 if launcher == "deepspeed" else 3), "two of them are ranks"
        (command if part == "command" else command.children()[0]).send_signal(sent)
        start = time.monotonic()
        assert not psutil.wait_procs(family, timeout=120)[1]
        print(f"all gone after {time.monotonic() - start:.1f} s")
        (heard,), _ = said_by([process])
    assert [line for line in said if line not in heard] == []
    assert (NOTICED in heard) == (NOTICED in said)
    (done,) = checkpoints(output)
    assert done == len(losses(output)), "all that was done is kept"

    ranks = start_ranks(2, LAUNCHER, "--config", file, f"train.steps={done + 2}")
    assert wait_for(ranks) == [0, 0]
    assert len(losses(output)) == done + 2
