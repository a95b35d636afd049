"""Tiny runs for the integration tests: random packed shards, a small configuration, real ranks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from primus_scale.config import Config
from primus_scale.config_file import apply_overrides, dump_config, parse_config
from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import make_block
from primus_scale.sample import WindowMeta, window_uid
from shards.write.writer import PackedShardWriter
from tests import fork_server

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "launch" / "deepspeed_train.py"
ONE_AFTER_THE_OTHER = Path(__file__).with_name("run_in_turn.py")
POLL_S = 0.02
LAST_BYTES = 2**15  # of a log: some tens of its lines
RATE_HZ = 50.0
SAMPLES = 250
BLOCK = 16
TEACHERS = {
    "video": TeacherSpace(dim=24, key="video-key", space="video-space", teacher="random-video"),
    "text": TeacherSpace(dim=16, key="text-key", space="text-space", teacher="random-text"),
}
SIGNAL_TEACHER = {
    "signal": TeacherSpace(dim=12, key="signal-key", space="signal-space", teacher="random-signal")
}
Process = subprocess.Popen[str] | fork_server.Forked
_ranks: list[Process] = []  # that the running test has started


def write_shards(
    folder: Path | str,
    windows: int = 48,
    *,
    seed: int = 0,
    teachers: dict[str, TeacherSpace] = TEACHERS,
    imu_only_share: float = 0.25,
    sessions: bool = False,
) -> str:
    """Packed shards of random windows, a share of them without embeddings; returns their URL.

    sessions: the index says which sessions they are of, ten windows each.
    """
    rng = np.random.default_rng(seed)
    with PackedShardWriter(
        str(folder), rate_hz=RATE_HZ, teachers=teachers, sessions=sessions
    ) as writer:
        for start in range(0, windows, BLOCK):
            rows = range(start, min(start + BLOCK, windows))
            present = rng.random(len(rows)) >= imu_only_share
            embeddings = {}
            for modality, teacher in teachers.items():
                vectors = rng.standard_normal((len(rows), teacher.dim))
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                embeddings[modality] = vectors * present[:, None]
            imu = rng.standard_normal((len(rows), 6, SAMPLES)).astype(np.float32)
            metas = [_meta(seed, row) for row in rows]
            writer.write(make_block(imu, metas, (), embeddings, dict.fromkeys(teachers, present)))
    return str(folder)


def tiny_config(output: Path, train: str, *overrides: str, **sections: Any) -> Config:
    """A run of a few steps of 8 windows with a support set that wraps around.

    Its encoder takes a quarter of the time of the paper's (``PAPER``).
    """
    tree = {
        "name": "tiny",
        "output": str(output),
        "data": {"train": [train], "shuffle_blocks": 2},
        "encoder": {"name": "conv_stats", "size": "XS", "ss_dim": 16},
        "support": {"capacity": 20, "minimum_fill": 4},
        "optimizer": {"warmup_steps": 2},
        "train": {"batch": 8, "steps": 6, "device": "cpu", "threads": 1, "log_every": 1},
        **sections,
    }
    return apply_overrides(parse_config(Config, tree, source="tiny"), overrides)


PAPER = "encoder.name=stacked_rnn"  # override for the paper's encoder
NEAR = (  # overrides for the term on windows near in time, of shards with sessions
    "objective.weights.imu_near=1.0",
    "data.session_windows=4",
)


SIGNAL = ("objective.weights.imu_signal=0.5",)  # of shards with SIGNAL_TEACHER


def write_config(config: Config, path: Path) -> Path:
    """The configuration as the file that launchers take."""
    path.write_text(dump_config(config), encoding="utf-8")
    return path


def records(output: Path) -> list[dict[str, Any]]:
    """What a run has logged, without the line that it may be writing."""
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def losses(output: Path) -> list[float]:
    """Total loss of each step, as the run logged it."""
    return [record["loss/total"] for record in records(output) if "loss/total" in record]


def steps(output: Path) -> list[int]:
    """Numbers of the steps in the log, none where there is no log yet."""
    with suppress(FileNotFoundError):
        return [int(record["step"]) for record in records(output) if "loss/total" in record]
    return []


def last_step(output: Path) -> int:
    """Number of the last step in the log, 0 where there is none."""
    for line in reversed(_last_lines(output)):
        if b'"loss/total"' in line:
            return int(json.loads(line)["step"])
    return (steps(output) or [0])[-1]


def last_record(output: Path) -> dict[str, Any]:
    """The last record of a log that has some."""
    return dict(json.loads(_last_lines(output)[-1]))


def _last_lines(output: Path) -> list[bytes]:
    """The last lines of the log: those who wait for one would read the whole log all the time."""
    with suppress(FileNotFoundError), (output / "metrics.jsonl").open("rb") as log:
        start = log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_BYTES))
        return log.read().split(b"\n")[1 if start else 0 : -1]
    return []


def checkpoints(output: Path) -> list[int]:
    """Steps after which there is a checkpoint, in their order."""
    return sorted(step_of(path.name) for path in output.glob("checkpoints/step-*"))


def newest_checkpoint(output: Path) -> int:
    """Step of the newest checkpoint, 0 where there is none."""
    return (checkpoints(output) or [0])[-1]


def step_of(checkpoint: str) -> int:
    """The step that the name of a checkpoint tells."""
    return int(checkpoint.removeprefix("step-"))


def tensors_of(tree: Any, place: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dictionaries and lists, by their place."""
    if isinstance(tree, torch.Tensor):
        return {place: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found: dict[str, torch.Tensor] = {}
    for key, value in items:
        if isinstance(value, dict | list | tuple | torch.Tensor):
            found |= tensors_of(value, f"{place}/{key}")
    return found


def start_ranks(
    world: int,
    program: Path,
    *arguments: str,
    own: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    fresh: bool = False,
) -> list[Process]:
    """Start ``world`` processes that find each other as a launcher would arrange it.

    own: environment variables of single ranks. fresh: in interpreters of their own, for variables
    that a fork of a running one would not heed, and for CUDA. What still runs when the test ends is
    killed (conftest.py).
    """
    environment = {
        **os.environ,
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    ranks = []
    for rank in range(world):
        env = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), **own.get(rank, {})}
        process: Process
        if fresh:
            process = subprocess.Popen(
                [sys.executable, str(program), *arguments],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        else:
            process = fork_server.start(program, *arguments, env=env)
        _ranks.append(process)
        ranks.append(process)
    return ranks


def kill_ranks() -> None:
    """Kill what ``start_ranks`` started and nobody waited for; shows what it had printed."""
    left = [rank for rank in _ranks if rank.stdout and not rank.stdout.closed]
    _ranks.clear()
    for rank in left:
        rank.kill()
    said_by(left)


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher in a process group of its own, which ends with the block, whatever happens."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as launcher:
        try:
            yield launcher
        finally:
            with suppress(ProcessLookupError):  # all of the group has ended
                os.killpg(launcher.pid, signal.SIGKILL)


@contextmanager
def forked(
    program: Path | str, *arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[fork_server.Forked]:
    """As ``started``, a program that is no launcher: a file, or a module by its name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", **variables}
    start = fork_server.start
    with start(program, *arguments, env=environment, cwd=ROOT, start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # all of the group has ended
                os.killpg(process.pid, signal.SIGKILL)


def said_by(processes: Sequence[Process], timeout_s: float = 300.0) -> tuple[list[str], list[int]]:
    """What the processes have printed when they have ended, and their exit codes.

    Those that do not end are killed. What they printed is shown with a failing test.
    """
    try:
        for process in processes:
            process.communicate(timeout=timeout_s)
    finally:
        for process in processes:
            process.kill()
        texts = [process.communicate(timeout=timeout_s)[0] for process in processes]
        for text in texts:
            print(text)
    return texts, [process.returncode for process in processes]


def wait_for(processes: Sequence[Process], timeout_s: float = 300.0) -> list[int]:
    """Exit codes of the processes, as of ``said_by``."""
    return said_by(processes, timeout_s)[1]


def errors_of(ranks: Sequence[Process]) -> list[str]:
    """The one line that each rank tells its user before it ends, with 1 and no traceback."""
    texts, codes = said_by(ranks)
    assert codes == [1] * len(ranks), texts
    lines = []
    for text in texts:
        assert "Traceback" not in text
        (line,) = (line for line in text.splitlines() if "error: " in line)
        lines.append(line)
    return lines


def wait_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Return as soon as ``condition()`` is true; AssertionError where it stays false.

    A look at all processes takes longer than ``POLL_S``: it is repeated more rarely, so that those
    waited for have the core.
    """
    end = time.monotonic() + timeout_s
    began = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < end, "what was waited for did not happen"
        time.sleep(min(max(POLL_S, 5 * (now - began)), 10 * POLL_S))
        began = time.monotonic()


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _meta(seed: int, number: int) -> WindowMeta:
    recording, start_s = f"recording-{seed}-{number // 10}", 2.5 * number
    return WindowMeta(
        uid=window_uid("tiny", recording, "imu", start_s),
        dataset="tiny",
        recording=recording,
        device="imu",
        placement="waist",
        person=f"person-{number // 20}",
        session=recording,
        start_s=start_s,
    )
