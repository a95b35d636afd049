"""Tiny runs for the integration tests: random packed shards, a small configuration, real ranks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primus_scale.config import Config
from primus_scale.config_file import apply_overrides, dump_config, parse_config
from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import make_block
from primus_scale.sample import WindowMeta, window_uid
from shards.writer import PackedShardWriter

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "launch" / "deepspeed_train.py"
ONE_AFTER_THE_OTHER = Path(__file__).with_name("run_in_turn.py")
RATE_HZ = 50.0
SAMPLES = 250
BLOCK = 16
TEACHERS = {
    "video": TeacherSpace(dim=24, key="video-key", space="video-space", teacher="random-video"),
    "text": TeacherSpace(dim=16, key="text-key", space="text-space", teacher="random-text"),
}


def write_shards(
    folder: Path | str,
    windows: int = 48,
    *,
    seed: int = 0,
    teachers: dict[str, TeacherSpace] = TEACHERS,
    imu_only_share: float = 0.25,
) -> str:
    """Packed shards of random windows, a share of them without embeddings; returns their URL."""
    rng = np.random.default_rng(seed)
    with PackedShardWriter(str(folder), rate_hz=RATE_HZ, teachers=teachers) as writer:
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
    """A run of a few steps of 8 windows with a support set that wraps around."""
    tree = {
        "name": "tiny",
        "output": str(output),
        "data": {"train": [train], "shuffle_blocks": 2},
        "encoder": {"ss_dim": 16},
        "support": {"capacity": 20, "minimum_fill": 4},
        "optimizer": {"warmup_steps": 2},
        "train": {"batch": 8, "steps": 6, "device": "cpu", "threads": 1, "log_every": 1},
        **sections,
    }
    return apply_overrides(parse_config(Config, tree, source="tiny"), overrides)


def write_config(config: Config, path: Path) -> Path:
    """The configuration as the file that launchers take."""
    path.write_text(dump_config(config), encoding="utf-8")
    return path


def losses(output: Path) -> list[float]:
    """Total loss of each step, as the run logged it."""
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss/total"] for record in map(json.loads, lines) if "loss/total" in record]


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


def start_ranks(world: int, program: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start ``world`` processes that find each other as a launcher would arrange it."""
    environment = {
        **os.environ,
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, str(program), *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]


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


def wait_for(ranks: Sequence[subprocess.Popen[str]], timeout_s: float = 300.0) -> list[int]:
    """Exit codes of the processes; what they print is shown with a failing test."""
    try:
        for rank in ranks:
            rank.wait(timeout=timeout_s)
    finally:
        for rank in ranks:
            rank.kill()
            print(rank.communicate()[0])
    return [rank.returncode for rank in ranks]


def wait_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Return as soon as ``condition()`` is true; AssertionError where it stays false."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


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
        start_s=start_s,
    )
