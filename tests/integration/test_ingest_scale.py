"""Ingestion of many recordings: any number of workers, kills, broken files, real object storage."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import fsspec
import numpy as np
import pytest

from primus_scale.data.shard_set import ShardSet
from shards.write.verify import verify
from tests import fork_server
from tests.conftest import require
from tests.integration.tiny import ROOT, Process, forked, wait_until
from tests.recording_folder import write_recordings
from tests.s3_server import s3_server

Variables = Mapping[str, str]
RECORDINGS = 60
BROKEN = "person 3/walk 043"
COMMAND = "primus_scale.cli"
HERE: Variables = {}


def command(source: Path | str, out: Path | str, workers: int) -> tuple[str, ...]:
    """Arguments of ``primus-scale``."""
    return (
        *("shards", "build", "folder", "--src", str(source), "--out", str(out)),
        *("--workers", str(workers), "--shard-bytes", "120000"),  # several shards
    )


def build(
    source: Path | str, out: Path | str, workers: int = 1, variables: Variables = HERE
) -> str:
    """What the command prints. variables: of the cluster, where it has one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    arguments = command(source, out, workers)
    done = fork_server.run(COMMAND, *arguments, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, range(RECORDINGS))
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one worker makes of the recordings."""
    out = tmp_path_factory.mktemp("built") / "shards"
    build(source, out)
    assert verify(str(out)).ok
    assert len(list(out.glob("shard-*.tar"))) > 3
    return contents(out)


def test_two_workers_write_the_same_bytes_as_one(
    source: Path, built: dict[str, bytes], cluster: Variables, tmp_path: Path
) -> None:
    printed = build(source, tmp_path / "out", 2, cluster)
    windows = count(built, *range(RECORDINGS))
    assert (
        f"{RECORDINGS:,} recordings: {windows:,} windows, 0 refused, 0 recordings failed" in printed
    )
    assert contents(tmp_path / "out") == built


def kill(run: Process) -> None:
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    source: Path, built: dict[str, bytes], cluster: Variables, tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "out/.work"
    with forked(COMMAND, *command(source, out, workers=2), variables=cluster) as run:
        wait_until(lambda: list(work.glob("recording-*.json")))
        time.sleep(random.uniform(0.0, 1.0))
        kill(run)
    assert not (out / "index.json").exists()
    kept = {p.with_suffix(".tar"): p.stat().st_mtime_ns for p in work.glob("recording-*.json")}
    assert kept
    before = {path: path.stat().st_mtime_ns for path in kept}

    with forked(COMMAND, *command(source, out, workers=2), variables=cluster) as run:
        wait_until(lambda: list(out.glob("shard-*.tar")))
        kill(run)  # while records are dealt
    assert not (out / "index.json").exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == before, "none is read again"

    build(source, out, 2, cluster)
    assert contents(out) == built


def test_a_corrupt_recording_is_listed_and_leaves_the_others_as_they_are(
    source: Path, built: dict[str, bytes], cluster: Variables, tmp_path: Path
) -> None:
    damaged = tmp_path / "source"
    shutil.copytree(source, damaged, copy_function=os.link)
    file = damaged / BROKEN / "imu.npy"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    printed = build(damaged, tmp_path / "out", 2, cluster)
    healthy, number = json.loads(built["ingest.json"])["recordings"], int(BROKEN[-3:])
    left = count(built, *range(RECORDINGS)) - count(built, number)
    assert f"{RECORDINGS:,} recordings: {left:,} windows, 0 refused, 1 recording failed" in printed
    assert f"{BROKEN}/imu.npy" in printed
    report = json.loads((tmp_path / "out/ingest.json").read_text())["recordings"]
    assert [r["name"] for r in report if r["error"]] == [BROKEN.replace("/", "-")]
    assert [r for r in report if not r["error"]] == [
        r for r in healthy if r["name"] != BROKEN.replace("/", "-")
    ]
    after = windows_by_uid(tmp_path / "out")
    before = windows_by_uid(built_folder(built, tmp_path / "healthy"))
    assert len(after) == left
    assert all((imu == before[uid]).all() for uid, imu in after.items())


def count(built: dict[str, bytes], *numbers: int) -> int:
    """Windows of the recordings with these numbers."""
    report = json.loads(built["ingest.json"])["recordings"]
    return sum(r["windows"] for r in report if int(r["name"][-3:]) in numbers)


def built_folder(built: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, data in built.items():
        (folder / name).write_bytes(data)
    return folder


def windows_by_uid(folder: Path) -> dict[int, np.ndarray]:
    shards = ShardSet.open(str(folder))
    windows = map(shards.read_window, range(len(shards)))
    return {window.meta.uid: window.imu for window in windows}


def test_recordings_and_shards_on_object_storage(tmp_path: Path) -> None:
    """On a cluster of the command's own, whose workers find the server as the command does."""
    near = tmp_path / "near"
    write_recordings(near, range(6))
    build(near, tmp_path / "out")
    with s3_server(tmp_path / "s3") as bucket:
        files = fsspec.filesystem("s3")
        files.put(f"{near}/", f"{bucket}/raw/", recursive=True)
        build(f"{bucket}/raw", f"{bucket}/out", workers=2)
        assert verify(f"{bucket}/out").ok
        far = {Path(path).name: files.cat_file(path) for path in files.find(f"{bucket}/out")}
    assert far.keys() == contents(tmp_path / "out").keys(), "nothing of the work is left"
    near_shards = {n: data for n, data in contents(tmp_path / "out").items() if ".tar" in n}
    assert {name: far[name] for name in near_shards} == near_shards


PEAK = """
import re, sys
from primus_scale.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def peak_mib(program: Path, *arguments: str) -> float:
    """Largest resident memory of a process of its own that runs the command."""
    program.write_text(PEAK)
    done = fork_server.run(program, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path) -> None:
    require(Path("/proc/self/status").is_file(), "no /proc to read the peak of memory from")
    peaks = []
    for hours in (0.5, 6.0):
        folder = tmp_path / f"{hours} h"
        write_recordings(folder / "source", [0], seconds=hours * 3600)
        peaks.append(peak_mib(tmp_path / "peak.py", *command(folder / "source", folder / "out", 1)))
    assert peaks[1] < 1536
    assert peaks[1] - peaks[0] < 100, "a longer recording costs little more"
