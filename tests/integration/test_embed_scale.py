"""Embedding by many workers: the same bytes for any number, kills, real object storage."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import fsspec
import pytest

from shards.write.verify import verify
from tests import fork_server
from tests.integration.tiny import ROOT, forked, wait_until
from tests.s3_server import s3_server
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import illustrate, save_model

COUNT = 96
GROUPS, SHARDS = 24, 24
HERE: Mapping[str, str] = {}  # of no cluster
# The command's function, with groups and shards so small that there are many; workers keep their
# own settings, so this also shows that only the driver cuts.
PROGRAM = """import sys
from shards.embed import embed, packing
embed.GROUP_WINDOWS, packing.SHARD_BYTES = 4, 1
source, out, teacher, workers = sys.argv[1:]
embed.embed(source, out, video=teacher, text=teacher, block=4, batch=3, workers=int(workers))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "embed.py"
    path.write_text(PROGRAM)
    return path


def embed(program: Path, *arguments: object, variables: Mapping[str, str] = HERE) -> str:
    """What the command prints; arguments: source, out, teacher, workers."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = fork_server.run(program, *map(str, arguments), env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("clip"), "clip"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("source") / "windows")
    write_windows(url, illustrate(make_windows(COUNT)), shard_bytes=200_000)
    return url


@pytest.fixture(scope="module")
def packed(
    program: Path, source: str, teacher: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one process makes of the windows."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    printed = embed(program, source, out, teacher, 1)
    assert f"embed  {COUNT:,} windows  parts: {GROUPS}" in printed
    assert f"pack  {COUNT:,} windows  parts: {SHARDS}" in printed
    assert verify(str(out)).ok
    return contents(out)


def test_a_run_killed_in_either_step_goes_on_and_ends_with_the_same_bytes(
    program: Path,
    source: str,
    teacher: str,
    packed: dict[str, bytes],
    cluster: dict[str, str],
    tmp_path: Path,
) -> None:
    out, work = tmp_path / "out", tmp_path / "out" / ".work"

    def done(kind: str) -> set[str]:
        return {path.name.split(".")[0] for path in work.glob(f"{kind}-*.json")}

    def kill_after(kind: str, count: int, workers: int) -> None:
        variables = cluster if workers > 1 else HERE
        arguments = (source, str(out), teacher, str(workers))
        with forked(program, *arguments, variables=variables) as run:
            wait_until(lambda: len(done(kind)) >= count)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        assert not (out / "index.json").exists()

    def written(names: set[str]) -> dict[str, int]:
        return {name: (work / f"{name}.tar").stat().st_mtime_ns for name in names}

    kill_after("group", 2, workers=2)
    groups = done("group")
    assert len(groups) < GROUPS
    before = written(groups)
    kill_after("shard", 2, workers=1)
    assert len(done("shard")) < SHARDS
    assert written(groups) == before, "finished groups are not embedded again"

    embed(program, source, out, teacher, 1)
    assert contents(out) == packed


def test_two_workers_on_object_storage_write_the_same_bytes_as_one_on_local_disk(
    program: Path,
    source: str,
    teacher: str,
    packed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """On a cluster of the command's own, whose workers find the server as the command does."""
    with s3_server(tmp_path / "s3") as bucket:
        files = fsspec.filesystem("s3")
        files.put(f"{source}/", f"{bucket}/windows/", recursive=True)
        embed(program, f"{bucket}/windows", f"{bucket}/packed", teacher, 2)
        far = {Path(path).name: files.cat_file(path) for path in files.find(f"{bucket}/packed")}
    assert far == packed, "and nothing of the work is left"
