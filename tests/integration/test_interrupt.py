"""Ctrl-C in each command: one line, 130, nothing lost. A terminal sends it to the whole group."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from primus_scale.config_file import load_config
from primus_scale.train.trainer import pretrain
from shards.write.verify import verify
from tests.conftest import require
from tests.integration.test_cli_commands import write_task
from tests.integration.tiny import (
    LAUNCHER,
    Process,
    checkpoints,
    forked,
    free_port,
    last_step,
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
from tests.recording_folder import write_recordings
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import save_model

PATIENCE_S = 300.0  # other tests may keep the machine busy
COMMAND = "primus_scale.cli"
INTERRUPTED = 130


@pytest.fixture(autouse=True)
def lines_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Also where a shell started the tests in the background, with SIGINT ignored for all."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def says(text: str) -> Callable[[Process], None]:
    """Waits for a line with ``text``."""

    def wait(process: Process) -> None:
        lines = []
        while text not in (lines or [""])[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)

    return wait


def interrupted(command: tuple[str, ...], ready: Callable[[Process], None], group: bool) -> str:
    """What a command (a module, its arguments) says after Ctrl-C, to it alone or to its group."""
    with forked(*command) as process:
        ready(process)
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        (said,), codes = said_by([process])
        assert codes == [INTERRUPTED], said
        assert not psutil.wait_procs(members(process.pid), timeout=30)[1], "processes were left"
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    return said


def members(group: int) -> list[psutil.Process]:
    """The processes of a group."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                found.append(process)
    return found


def line_of(said: str) -> str:
    """The one line that tells of it."""
    (line,) = (line for line in said.splitlines() if "interrupted" in line)
    return line


@pytest.mark.parametrize(("workers", "group"), [("1", False), ("2", True)])
def test_build_keeps_what_is_done(tmp_path: Path, workers: str, group: bool) -> None:
    require((os.cpu_count() or 1) >= int(workers), "two Ray workers need two cores")
    source, out = tmp_path / "source", tmp_path / "out"
    write_recordings(source, range(60))
    options = ("--window-s", "2", "--require", "--workers", workers)
    command = (COMMAND, "shards", "build", "folder", "--src", str(source), "--out", str(out))

    def some_are_done(process: Process) -> None:
        wait_until(lambda: len(list(out.glob(".work/recording-*.json"))) >= 2, PATIENCE_S)

    said = interrupted((*command, *options), some_are_done, group)
    assert line_of(said) == (
        "primus-scale shards: interrupted; what is done is kept, and the same command goes on"
    )
    kept = [path.with_suffix(".tar") for path in out.glob(".work/recording-*.json")]
    done = {path: path.stat().st_mtime_ns for path in kept}
    assert done
    assert not (out / "index.json").exists()
    assert not (out / "run.lock").exists()
    with forked(*command, "--window-s", "2", "--require", "--workers", "1") as process:
        says("60 of 60")(process)
        assert all(path.stat().st_mtime_ns == time for path, time in done.items() if path.exists())
        assert wait_for([process]) == [0]
    assert verify(str(out)).ok


def test_demo_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (COMMAND, "shards", "build", "demo", "--out", str(out), "--workers", "2")
    said = interrupted((*command, "--moments", "120"), says("synthetic takes"), group=True)
    assert line_of(said) == "primus-scale shards: interrupted; nothing was written; start it again"
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_embed_keeps_what_is_done(tmp_path: Path) -> None:
    source, out = str(tmp_path / "windows"), tmp_path / "out"
    write_windows(source, make_windows(600, samples=200))
    model = str(save_model(tmp_path / "model", "clip"))
    command = (COMMAND, "shards", "embed", "--src", source, "--out", str(out), "--video", model)
    said = interrupted((*command, "--batch", "1"), says("parts: "), group=True)
    assert line_of(said).endswith("what is done is kept, and the same command goes on")
    assert not (out / "index.json").exists()


def test_verify_changes_nothing(tmp_path: Path) -> None:
    write_windows(str(tmp_path / "out"), make_windows(20))
    shard = tmp_path / "out/shard-000000.tar"
    os.truncate(shard, 50 * 2**30)  # takes a minute to read, and no space

    def reads(process: Process) -> None:
        wait_until(
            lambda: str(shard) in {f.path for f in psutil.Process(process.pid).open_files()},
            PATIENCE_S,
        )

    said = interrupted((COMMAND, "shards", "verify", str(tmp_path / "out")), reads, group=False)
    assert line_of(said) == "primus-scale shards: interrupted; nothing was written; start it again"


def test_pretrain_saves_and_goes_on(tmp_path: Path) -> None:
    output, run = tmp_path / "out", tmp_path / "run.yaml"
    endless = ("train.pictures_every=100000", "optimizer.schedule=constant")
    config = tiny_config(output, write_shards(tmp_path / "shards"), *endless)
    command = (COMMAND, "pretrain", "--config", str(write_config(config, run)))

    def trains(process: Process) -> None:
        wait_until(lambda: last_step(output) >= 2, PATIENCE_S)

    said = interrupted((*command, "train.steps=100000"), trains, group=True)
    assert line_of(said) == "interrupted: stopping after a checkpoint; Ctrl-C again ends at once"
    assert f"{output}: stopped, what is done is in its checkpoint; the same command goes" in said
    (done,) = checkpoints(output)
    assert done == last_step(output), "not a step is lost"
    before = losses(output)
    task = write_task(tmp_path / "task")
    with forked(*command, f"train.steps={done + 1}") as process:
        assert wait_for([process]) == [0]
    assert losses(output)[:-1] == before
    evaluate_is_interrupted(output, task)


def evaluate_is_interrupted(run: Path, task: str) -> None:
    command = (COMMAND, "evaluate", "--run", str(run), "--data", task, "k=[1]", "draws=100")

    def works(process: Process) -> None:
        wait_until((run / "few_shot").is_dir, PATIENCE_S)

    said = interrupted((*command, "steps=100000"), works, group=True)
    assert "interrupted; " in line_of(said)
    assert not (run / "few_shot/report.html").exists()


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """While the first waits for data that do not come: here, behind a stopped rank."""
    output, run = tmp_path / "out", tmp_path / "run.yaml"
    config = tiny_config(output, write_shards(tmp_path / "shards"), "train.pictures_every=100000")
    file = str(write_config(config, run))
    first, second = start_ranks(2, LAUNCHER, "--config", file, "train.steps=100000")
    wait_until(lambda: last_step(output) >= 2, PATIENCE_S)
    second.send_signal(signal.SIGSTOP)
    first.send_signal(signal.SIGINT)
    says("interrupted: stopping after a checkpoint")(first)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=10) == INTERRUPTED


def test_ranks_of_deepspeed_save_and_go_on(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("deepspeed")
    require(program.is_file(), "the deepspeed command is not installed")
    output = tmp_path / "out"
    config = tiny_config(output, write_shards(tmp_path / "shards"), "train.pictures_every=100000")
    file = str(write_config(config, tmp_path / "run.yaml"))
    options = ("--num_gpus", "2", "--master_port", str(free_port()))
    run = (str(LAUNCHER), "--config", file, "train.steps=100000")
    with started(sys.executable, str(program), *options, *run) as launcher:
        wait_until(lambda: last_step(output) >= 2, PATIENCE_S)
        os.killpg(launcher.pid, signal.SIGINT)
        said = said_by([launcher])[0][0]
        wait_until(lambda: not members(launcher.pid), PATIENCE_S)
    assert said.count("interrupted: stopping after a checkpoint") == 1
    assert f"{output}: stopped, what is done is in its checkpoint" in said
    own = re.sub(r"(?s)Traceback.*?KeyboardInterrupt\n", "", said)  # the deepspeed command's own
    assert "Traceback" not in own
    (done,) = checkpoints(output)
    assert done == last_step(output)


def test_ray_saves_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C to all; `test_secrets` sends SIGTERM to the driver alone. One process goes on."""
    require((os.cpu_count() or 1) >= 2, "two Ray workers need two cores")
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards")
    overrides = ("launch.workers=2", "train.pictures_every=100000", "optimizer.schedule=constant")
    file = str(write_config(tiny_config(output, shards, *overrides), tmp_path / "run.yaml"))
    command = ("launch.ray_train", "--config", file)

    def trains(process: Process) -> None:
        wait_until(lambda: last_step(output) >= 2, PATIENCE_S)

    said = interrupted((*command, "train.steps=100000"), trains, group=True)
    assert "interrupted: stopping after a checkpoint; Ctrl-C again ends at once" in line_of(said)
    assert f"{output}: stopped, what is done is in its checkpoint" in said
    (done,) = checkpoints(output)
    assert done == last_step(output)

    assert pretrain(load_config(file, [f"train.steps={done + 2}"])) == 0
    assert len(losses(output)) == done + 2
    pretrain(tiny_config(tmp_path / "alone", shards, "train.steps=1", *overrides))
    assert losses(output)[0] == pytest.approx(losses(tmp_path / "alone")[0], rel=1e-4)
