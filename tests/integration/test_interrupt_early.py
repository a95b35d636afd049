"""Ctrl-C while a program imports what it needs: one line, 130, no traceback."""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shards.write.verify import verify
from tests import fork_server
from tests.integration.tiny import started, wait_until
from tests.recording_folder import write_recordings

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "primus_scale.cli")
INTERRUPTED = 130
PATIENCE_S = 300.0  # other tests may keep the machine busy
MOMENTS_S = (0.0, 0.05, 0.2, 0.5, 1.0, 1.5, 2.0, 4.0)  # after it began
# Modules that import Python's own only.
LIGHT = ("primus_scale.allocator", "primus_scale.stopping", "primus_scale.command_parser")
LINE = "interrupted; nothing was begun, start it again"


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Also where a shell started the tests in the background, with SIGINT ignored for all."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def programs() -> list[str]:
    """The modules that can be run, ``python -m launch.ray_train``; examples are short to read."""
    found = []
    for path in ROOT.glob("*/**/*.py"):
        place = path.relative_to(ROOT)
        if (
            place.parts[0] not in ("tests", ".venv", "build", "examples")
            and "__main__" in path.read_text()
        ):
            found.append(".".join(place.with_suffix("").parts))
    return sorted(found)


def has_begun(process: subprocess.Popen[str]) -> bool:
    """Whether it imports more than Python's own modules, or has ended.

    Before that Python itself starts, which nobody can keep from telling of Ctrl-C in its own way.
    """
    try:
        return "pydantic" in Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def interrupted(arguments: tuple[str, ...], after_s: float) -> tuple[int, str]:
    """Exit code and output of a program after Ctrl-C at a moment."""
    with started(sys.executable, *arguments) as process:
        wait_until(lambda: has_begun(process) or process.poll() is not None, PATIENCE_S)
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)  # some end before that moment
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in said and "KeyboardInterrupt" not in said
        return process.returncode, said


def test_programs_are_found() -> None:
    assert {"primus_scale.cli", "launch.ray_train", "launch.deepspeed_train"} <= set(programs())


@pytest.mark.parametrize("module", programs())
def test_every_program_ends_with_a_line(module: str) -> None:
    code, said = interrupted(("-m", module, "--help"), 0.0)
    assert code in (INTERRUPTED, 0)
    assert said.splitlines() == [LINE] if code else "usage" in said


@pytest.mark.parametrize("module", programs())
def test_every_program_hears_it_before_what_takes_long(module: str) -> None:
    """Its first imports are of Python's own modules and of what takes Ctrl-C."""
    body = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text()).body
    for node in body:
        if "end_while_loading()" in ast.unparse(node):
            return
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        allowed = (*sys.stdlib_module_names, *LIGHT)
        assert all(name in allowed or name.split(".")[0] in allowed for name in names), names
    raise AssertionError(f"{module} does not call end_while_loading")


@pytest.mark.parametrize("command", ["help", "build", "pretrain"])
def test_a_command_ends_with_a_line_at_any_moment(command: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_recordings(source, range(3))
    codes = []
    for number, moment in enumerate(MOMENTS_S):
        out = tmp_path / f"out-{number}"
        arguments = {
            "help": ("--help",),
            "build": (
                *("shards", "build", "folder", "--src", str(source), "--out", str(out)),
                *("--window-s", "2", "--require", "--workers", "1"),
            ),
            "pretrain": ("pretrain", "--config", str(tmp_path / "absent.yaml")),
        }[command]
        code, said = interrupted((*COMMAND, *arguments), moment)
        codes.append(code)
        if code == INTERRUPTED:
            assert said.splitlines()[-1].endswith(
                (LINE, "interrupted; what is done is kept, and the same command goes on")
            )
            assert said.count("interrupted") == 1
            # Its last moments are after the index is written.
            assert not (out / "index.json").exists() or verify(str(out)).ok
    ended = {"help": 0, "build": 0, "pretrain": 1}[command]
    assert set(codes) <= {INTERRUPTED, ended, -signal.SIGINT}
    if command != "help":
        assert INTERRUPTED in codes


def test_a_program_in_the_background_goes_on() -> None:
    """A shell has it ignore Ctrl-C, which is meant for another."""
    command = 'trap "" INT; exec "$@"'
    arguments = (sys.executable, *COMMAND, "pretrain", "--config", "absent.yaml")
    with started("bash", "-c", command, "bash", *arguments) as process:
        wait_until(lambda: has_begun(process), PATIENCE_S)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1 and "absent.yaml" in said


DROPPED = """
import signal, time
from primus_scale.stopping import end_while_loading, restore_interrupts
end_while_loading()
restore_interrupts()
class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Finalized()
try:
    time.sleep(60)
    print("it was lost")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_a_finalizer_is_not_lost(tmp_path: Path) -> None:
    """Python drops what is raised there."""
    program = tmp_path / "finalizer.py"
    program.write_text(DROPPED)
    assert fork_server.run(program, cwd=ROOT).stdout == "interrupted\n"
