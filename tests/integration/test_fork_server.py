"""What the fork server starts is as a fresh process would be: on this the tests of ranks rely."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import fork_server
from tests.integration.tiny import wait_until

TELL = """
import json, os, random, sys, threading
import numpy as np
print(json.dumps({
    "arguments": sys.argv[1:], "name": __name__, "cwd": os.getcwd(), "pid": os.getpid(),
    "leader": os.getpgid(0) == os.getpid(), "threads": threading.active_count(),
    "environment": dict(os.environ), "files": len(os.listdir("/proc/self/fd")),
    "draws": [random.random(), np.random.random()],
}))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""
WAIT = "import time\nprint('waits', flush=True)\ntime.sleep(600)\n"


def write(folder: Path, text: str) -> Path:
    program = folder / "program.py"
    program.write_text(text)
    return program


def test_program_has_its_own_arguments_environment_folder_streams_and_draws(tmp_path: Path) -> None:
    told, environment = [], {"A": "b", "PATH": "/bin"}
    program = write(tmp_path, TELL)
    for leads in (False, True):
        process = fork_server.start(
            program, "x", "y", env=environment, cwd=tmp_path, start_new_session=leads
        )
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 7
        line, error = said.splitlines() if said.startswith("{") else said.splitlines()[::-1]
        assert error == "to stderr"
        told.append(json.loads(line))
        assert told[-1]["pid"] == process.pid
        assert told[-1]["leader"] == leads
    for one in told:
        assert one["arguments"] == ["x", "y"]
        assert one["name"] == "__main__"
        assert one["cwd"] == str(tmp_path)
        assert one["environment"] == environment
        assert one["threads"] == 1
        assert one["files"] == 4, "its three streams, and the list itself"
    assert len({draw for one in told for draw in one["draws"]}) == 4


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    with (tmp_path / "said").open("wb") as file:
        process = fork_server.start(write(tmp_path, "print('here')"), output=file)
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "said").read_text() == "here\n"


def test_output_and_errors_are_told_apart(tmp_path: Path) -> None:
    program = write(tmp_path, "import sys\nprint('out')\nsys.exit('wrong')")
    done = fork_server.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "wrong\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_end_a_program_as_they_would_a_fresh_one(tmp_path: Path, number: int) -> None:
    process = fork_server.start(write(tmp_path, WAIT))
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)


def test_programs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = write(tmp_path, WAIT)
    starter = f"""
import os, sys
from pathlib import Path
from tests import fork_server
process = fork_server.start(Path({str(program)!r}))
process.stdout.readline()
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(fork_server.ROOT)}
    command = [sys.executable, "-c", starter]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: not psutil.pid_exists(int(done.stdout)))
