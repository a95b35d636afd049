"""Ingestion of many recordings: any number of workers, kills, broken files, real object storage."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from primus_scale.data.shard_set import ShardSet
from shards.verify import verify
from tests.integration.tiny import ROOT, started, wait_for, wait_until
from tests.recording_folder import write_recordings
from tests.s3_server import s3_server

RECORDINGS = 200
BROKEN = "person 3/walk 123"


def command(source: Path | str, out: Path | str, workers: int) -> tuple[str, ...]:
    program = str(Path(sys.executable).with_name("primus-scale"))
    return (
        *(sys.executable, program, "shards", "build", "folder"),
        *("--src", str(source), "--out", str(out), "--workers", str(workers)),
    )


def build(source: Path | str, out: Path | str, workers: int) -> str:
    """What the command prints."""
    done = subprocess.run(
        command(source, out, workers), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, range(RECORDINGS))
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one worker makes of the recordings."""
    out = tmp_path_factory.mktemp("built") / "shards"
    build(source, out, workers=1)
    assert verify(str(out)).ok
    return contents(out)


def test_two_workers_write_the_same_bytes_as_one(
    source: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    printed = build(source, tmp_path / "out", workers=2)
    windows = count(built, *range(RECORDINGS))
    assert f"{RECORDINGS} recordings: {windows} windows, 0 refused, 0 recordings failed" in printed
    assert contents(tmp_path / "out") == built


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    source: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "out/.work"
    with started(*command(source, out, workers=2)) as run:
        wait_until(lambda: list(work.glob("recording-*.json")))
        time.sleep(random.uniform(0.0, 1.0))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not (out / "index.json").exists()
    done = {path.name: path.stat().st_mtime_ns for path in work.glob("recording-*.tar")}
    kept = {path.with_suffix(".tar").name for path in work.glob("recording-*.json")}
    assert kept

    with started(*command(source, out, workers=2)) as run:
        wait_until(lambda: len(list(work.glob("recording-*.json"))) > len(kept) or run.poll() == 0)
        now = {path.name: path.stat().st_mtime_ns for path in work.glob("recording-*.tar")}
        again = {name for name in kept & now.keys() if now[name] != done[name]}
        assert wait_for([run]) == [0]
    assert again == set(), "finished recordings are not read again"
    assert contents(out) == built


def test_a_corrupt_recording_is_listed_and_leaves_the_others_as_they_are(
    source: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    damaged = tmp_path / "source"
    shutil.copytree(source, damaged, copy_function=os.link)
    file = damaged / BROKEN / "imu.npy"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    printed = build(damaged, tmp_path / "out", workers=2)
    healthy, number = json.loads(built["ingest.json"])["recordings"], int(BROKEN[-3:])
    left = count(built, *range(RECORDINGS)) - count(built, number)
    assert f"200 recordings: {left} windows, 0 refused, 1 recordings failed" in printed
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
    near = tmp_path / "near"
    write_recordings(near, range(6))
    build(near, tmp_path / "out", workers=1)
    with s3_server(tmp_path / "s3") as bucket:
        files = fsspec.filesystem("s3")
        files.put(f"{near}/", f"{bucket}/raw/", recursive=True)
        build(f"{bucket}/raw", f"{bucket}/out", workers=2)
        assert verify(f"{bucket}/out").ok
        far = {Path(path).name: files.cat_file(path) for path in files.find(f"{bucket}/out")}
    assert far.keys() == contents(tmp_path / "out").keys(), "nothing of the work is left"
    (shard,) = (name for name in far if name.endswith(".tar"))
    assert far[shard] == contents(tmp_path / "out")[shard]


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path) -> None:
    peaks = []
    for number, hours in enumerate((0.1, 6.0)):
        source = tmp_path / f"source {number}"
        write_recordings(source, [number], seconds=hours * 3600)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        build(source, tmp_path / f"out {number}", workers=1)
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        assert peaks[-1] >= before
    short_kib, long_kib = peaks
    assert long_kib < 1.5 * 2**20
    assert long_kib - short_kib < 250 * 2**10, "a longer recording costs little more"
