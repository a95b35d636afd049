"""Python programs that tests start, as forks of a process that has imported what takes long.

    process = start(LAUNCHER, "--config", file)     # as subprocess.Popen([sys.executable, ...])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0

A fresh interpreter spends 4 CPU s before a rank has imported torch, DeepSpeed and the trainer; a
fork of one that has them needs none of it. A program has its own process number, environment,
working folder, arguments, streams and signals, and ends when the process that started it does.
Where a launcher, an import, the start of Python or what the C library reads from the environment
(LD_PRELOAD) is the subject, use ``subprocess``.

The server starts at the first use. It has one thread: a fork would not have the others.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

PRELOADED = (
    "deepspeed.module_inject.auto_ep_layer",
    "faiss",
    "matplotlib.figure",
    "primus_scale.train.trainer",
    "scipy.interpolate",
    "scipy.signal",
    "shards.write.writer",
    "torch._dynamo",  # the first optimizer imports it
    "torch.utils.tensorboard",
)
ROOT = Path(__file__).parents[1]
MESSAGE_BYTES = 2**17
START_S = 120.0
_servers: list[_Server] = []  # of this process: none, or one


def start(
    program: Path | str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
    errors: IO[bytes] | None = None,
    start_new_session: bool = False,
) -> Forked:
    """Start a program: a file, or a module by its name (as ``python -m``).

    env, cwd: as they are here by default. output, errors: open files for its standard output, by
    default a pipe to ``stdout``, and for its standard error, by default where the output goes.
    start_new_session: make it the leader of a process group of its own.
    """
    if not _servers:
        _servers.append(_Server())
    request = {
        "file": str(program) if isinstance(program, Path) else None,
        "module": None if isinstance(program, Path) else program,
        "arguments": list(arguments),
        "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or Path.cwd()),
        "start_new_session": start_new_session,
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    readable, writable = (None, output.fileno()) if output else os.pipe()
    try:
        _servers[0].send(
            request, theirs.fileno(), writable, errors.fileno() if errors else writable
        )
    finally:
        theirs.close()
        if not output:
            os.close(writable)
    stream = None if readable is None else open(readable, encoding="utf-8")  # noqa: PTH123, SIM115
    return Forked(ours, stream, [str(program), *arguments])


def run(
    program: Path | str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as ``subprocess.run`` with ``capture_output`` and ``text``."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(program, *arguments, env=env, cwd=cwd, output=output, errors=errors)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess([str(program), *arguments], code, *said)


def cpu_s() -> float:
    """CPU seconds of all programs that have ended and have been waited for."""
    return Forked.ended_cpu_s


def close() -> None:
    """End the server and what it has started, if it runs."""
    while _servers:
        _servers.pop().close()


class Forked:
    """A program that has been started, with what tests use of ``subprocess.Popen``."""

    ended_cpu_s = 0.0

    def __init__(self, connection: socket.socket, stdout: IO[str] | None, args: list[str]) -> None:
        self.stdout, self.args = stdout, args
        self.returncode: int | None = None
        self._connection = connection
        self._said: list[str] = []
        self._reader: threading.Thread | None = None
        self.pid = int(_receive(connection, START_S)["pid"])

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code when it has ended; subprocess.TimeoutExpired where it goes on."""
        if self.returncode is None:
            try:
                end = _receive(self._connection, timeout)
            except (BlockingIOError, TimeoutError) as error:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from error
            self._connection.close()
            self.returncode = int(end["code"])
            Forked.ended_cpu_s += end["cpu_s"]
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it prints until it has ended; subprocess.TimeoutExpired where it goes on."""
        end = None if timeout is None else time.monotonic() + timeout
        if self.stdout and not self._reader:
            self._reader = threading.Thread(target=self._read, args=(self.stdout,), daemon=True)
            self._reader.start()
        if self._reader:
            self._reader.join(timeout)
            if self._reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return "".join(self._said), None

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdout and not self._reader:
            self.stdout.close()
        self.wait()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            self._said.append(stdout.read())


class _Server:
    """The server's process, and the socket on which it takes requests."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(START_S)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "MPLBACKEND": "agg",
        }
        with tempfile.TemporaryFile() as said, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, **variables},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the tests, whose end is its own
            )
            theirs.close()
            if not self._requests.recv(MESSAGE_BYTES):
                said.seek(0)
                raise RuntimeError(f"the fork server did not start: {said.read().decode()}")

    def send(self, request: dict[str, Any], *files: int) -> None:
        message = json.dumps(request).encode()
        assert len(message) < MESSAGE_BYTES
        socket.send_fds(self._requests, [message], files)

    def close(self) -> None:
        self._requests.close()
        self._process.wait(START_S)


def _receive(connection: socket.socket, timeout: float | None) -> dict[str, Any]:
    connection.settimeout(timeout)
    message = connection.recv(MESSAGE_BYTES)
    assert message, "the fork server has ended"
    return dict(json.loads(message))


class _Child(NamedTuple):
    pid: int
    connection: socket.socket


def _serve(requests: socket.socket) -> tuple[dict[str, Any], socket.socket, list[int]] | None:
    """Start what is asked for, and tell its end, until nobody can ask any more.

    Returns in each child: what to run, where to tell the process number, and the files for its
    output and errors. None is for the server itself, at its end.
    """
    children: dict[int, _Child] = {}  # by a file that is readable when the child has ended
    with selectors.PollSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fd)
                    _tell_end(children.pop(key.fd))
                    os.close(key.fd)
                    continue
                message, files, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 3)
                if not message:
                    _kill(children)
                    return None
                connection = socket.socket(fileno=files[0])
                pid = os.fork()
                if not pid:
                    requests.close()
                    for file, child in children.items():
                        os.close(file)
                        child.connection.close()
                    return json.loads(message), connection, files[1:]
                for file in files[1:]:
                    os.close(file)
                ended = os.pidfd_open(pid)
                children[ended] = _Child(pid, connection)
                selector.register(ended, selectors.EVENT_READ)


def _tell_end(child: _Child) -> None:
    _, status, usage = os.wait4(child.pid, 0)
    spent_s = usage.ru_utime + usage.ru_stime
    end = {"code": os.waitstatus_to_exitcode(status), "cpu_s": spent_s}
    with child.connection, suppress(OSError):  # who has started it may not ask
        child.connection.send(json.dumps(end).encode())


def _kill(children: Mapping[int, _Child]) -> None:
    for child in children.values():
        kill = os.killpg if os.getpgid(child.pid) == child.pid else os.kill
        kill(child.pid, signal.SIGKILL)


def _run(request: dict[str, Any], connection: socket.socket, files: list[int]) -> None:
    """Become the program that was asked for."""
    if request["start_new_session"]:
        os.setsid()
    for stream, file in enumerate(files, start=1):
        os.dup2(file, stream)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.modules["numpy"].random.seed()  # else all programs would draw the same
    with connection:
        connection.send(json.dumps({"pid": os.getpid()}).encode())
    name = request["file"] or request["module"]
    sys.argv = [name, *request["arguments"]]
    sys.path[0] = str(Path(name).parent) if request["file"] else request["cwd"]
    if request["file"]:
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _module in PRELOADED:
        importlib.import_module(_module)
    _threads = len(list(Path("/proc/self/task").iterdir()))
    assert _threads == 1, f"a fork would lose {_threads - 1} threads"
    gc.freeze()
    _requests = socket.socket(fileno=int(sys.argv[1]))
    _requests.send(b"ready")
    if _program := _serve(_requests):
        _run(*_program)
