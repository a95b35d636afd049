"""Shards are written by one program at a time, whatever an earlier one has left there."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from primus_scale.distributed import run_lock, storage_lock
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.storage.folder import Folder
from shards.demo.build import build_demo
from shards.embed.embed import embed
from shards.ingest.ingest import ingest
from shards.ingest.recording_maker import IngestJob
from shards.write.verify import verify
from tests.integration.tiny import ROOT
from tests.recording_factory import make_settings
from tests.recording_folder import write_recordings
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import save_model


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for who uses an output: none here is about to end."""
    for module in (run_lock, storage_lock):
        for name in ("ENDING_S", "SETTLE_S", "LOOK_S"):
            monkeypatch.setattr(module, name, 0.1)


@pytest.fixture
def job(tmp_path: Path) -> IngestJob:
    """Three recordings of 12 s."""
    write_recordings(tmp_path / "source", range(3))
    return IngestJob("folder", str(tmp_path / "source"), str(tmp_path / "out"), make_settings())


def quiet(line: str) -> None:
    """Where progress goes."""


def test_an_output_in_use_is_refused_naming_who_uses_it(tmp_path: Path, job: IngestJob) -> None:
    windows, model = str(tmp_path / "windows"), save_model(tmp_path / "model", "clip")
    write_windows(windows, make_windows(4, samples=200))
    writers: list[Callable[[], object]] = [
        lambda: ingest(job, report=quiet),
        lambda: ingest(job, report=quiet, overwrite=True),
        lambda: embed(windows, job.out, video=str(model), report=quiet),
        lambda: build_demo(job.out, moments=1, workers=1, report=quiet),
    ]
    command = [sys.executable, "-m", "tests.run_lock_holder", job.out, "here"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        for write in writers:
            with pytest.raises(OSError, match=rf"{job.out} is in use by .*pid {holder.pid}.*--out"):
                write()
        holder.kill()
    ingest(job, report=quiet)
    assert verify(job.out).ok
    assert not Path(job.out, "run.lock").exists()


def test_object_storage_in_use_is_refused() -> None:
    url = "memory://in-use/out"
    job = IngestJob("folder", "unused", url, make_settings())
    with (
        locked_folder(url, instead="another --out"),
        pytest.raises(OSError, match=rf"{url} is in use by"),
    ):
        ingest(job, report=quiet)
    assert Folder(url).names() == []


def test_two_builds_at_once_leave_one_whole_output(job: IngestJob) -> None:
    told: list[str] = []
    ready = threading.Barrier(2)

    def build() -> None:
        ready.wait()
        try:
            ingest(job, report=quiet)
            told.append("built")
        except OSError as error:  # also that the first had ended already
            told.append(re.sub(r"pid \d+, since [^)]*", "", str(error)))

    both = [threading.Thread(target=build) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(told)[-1] == "built", told
    assert any("in use by" in line or "already holds shards" in line for line in told), told
    assert verify(job.out).ok


def flip(old: bytes) -> bytes:
    """The bytes with one bit in the middle of them turned over."""
    altered = bytearray(old)
    altered[len(old) // 2] ^= 1
    return bytes(altered)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "cut": lambda old: old[: len(old) // 2],
    "zeros": lambda old: bytes(len(old)),
    "longer": lambda old: old + b"\0",
}


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The shard of the recordings of ``job``."""
    folder = tmp_path_factory.mktemp("undamaged")
    write_recordings(folder / "source", range(3))
    job = IngestJob("folder", str(folder / "source"), str(folder / "out"), make_settings())
    ingest(job, report=quiet)
    return Path(job.out, "shard-000000.tar").read_bytes()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("kind", ["*.tar", "*.json"])
def test_damaged_work_is_done_again(
    undamaged: bytes, job: IngestJob, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    def stop(line: str) -> None:
        if line.startswith("write"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(job, report=stop)
    left = sorted(Path(job.out, ".work").glob(kind))
    assert left
    for path in left:
        path.write_bytes(damage(path.read_bytes()))
    ingest(job, report=quiet, overwrite=True)
    assert verify(job.out).ok
    assert Path(job.out, "shard-000000.tar").read_bytes() == undamaged
