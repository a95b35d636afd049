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
    free_port,
    last_step,
    newest_checkpoint,
    said_by,
    start_ranks,
    started,
    steps,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)

TWO_RANKS = {"deepspeed": ("--num_gpus", "2"), "torchrun": ("--nproc-per-node", "2")}
NOTICED = "its launcher is gone; stopping after a checkpoint"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output and configuration of a run that goes on in each test where the one before ended it."""
    folder = tmp_path_factory.mktemp("run")
    options = ("train.pictures_every=100000", "optimizer.schedule=constant")
    config = tiny_config(folder / "out", write_shards(folder / "shards"), *options)
    return folder / "out", str(write_config(config, folder / "run.yaml"))


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
            if process.stdout and not process.stdout.closed:  # the test has failed
                said_by([process])


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
        ("deepspeed", "process that started the ranks", signal.SIGKILL, (NOTICED,)),
        ("torchrun", "command", signal.SIGKILL, (NOTICED,)),
        ("torchrun", "command", signal.SIGTERM, ("closing signal SIGTERM",)),  # it hands it on
    ],
)
def test_ranks_do_not_outlive_their_launcher(
    run: tuple[Path, str], launcher: str, part: str, sent: signal.Signals, said: tuple[str, ...]
) -> None:
    output, file = run
    before = last_step(output)
    with launched(launcher, file) as process:
        wait_until(lambda: last_step(output) > before or process.poll() is not None, timeout_s=240)
        command, family = psutil.Process(process.pid), processes_of(file)
        assert len(family) == (4 if launcher == "deepspeed" else 3), "two of them are ranks"
        (command if part == "command" else command.children()[0]).send_signal(sent)
        start = time.monotonic()
        assert not psutil.wait_procs(family, timeout=120)[1]
        print(f"all gone after {time.monotonic() - start:.1f} s")
        (heard,), _ = said_by([process])
    assert [line for line in said if line not in heard] == []
    assert (NOTICED in heard) == (NOTICED in said)
    assert newest_checkpoint(output) == last_step(output), "all that was done is kept"
    assert steps(output) == list(range(1, last_step(output) + 1)), "and nothing is done twice"


def test_what_is_kept_goes_on_to_the_end(run: tuple[Path, str]) -> None:
    output, file = run
    goal = last_step(output) + 2
    assert wait_for(start_ranks(2, LAUNCHER, "--config", file, f"train.steps={goal}")) == [0, 0]
    assert steps(output) == list(range(1, goal + 1))
