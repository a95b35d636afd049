"""One folder at ``train.storage`` is of one run: real runs that meet there, and their advice."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from primus_scale.distributed import storage_lock
from primus_scale.distributed.run_lock import LOCK_FILE
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience
from tests.integration.tiny import (
    LAUNCHER,
    checkpoints,
    errors_of,
    last_step,
    losses,
    said_by,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)
from tests.s3_server import s3_server

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "storage")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture
def start(tmp_path: Path, storage: str) -> Start:
    """Starts one rank of a run in the output of a name."""
    config = tiny_config(
        tmp_path / "unused",
        write_shards(tmp_path / "shards"),
        f"train.storage={storage}",
        "train.checkpoint_every=2",
        "train.pictures_every=100000",
        "optimizer.schedule=constant",
    )
    file = str(write_config(config, tmp_path / "run.yaml"))

    def start(output: str, *overrides: str) -> subprocess.Popen[str]:
        place = f"output={tmp_path / output}"
        (rank,) = start_ranks(1, LAUNCHER, "--config", file, place, *overrides)
        return rank

    return start


def stored_names(storage: str) -> list[str]:
    """Paths of the files at the run's storage."""
    server, root = fsspec.core.url_to_fs(f"{storage}/tiny")
    server.invalidate_cache()
    return list(server.find(root)) if server.exists(root) else []


def stored(storage: str) -> dict[str, bytes]:
    """What lies at the run's storage, but for the lock, while no run writes there."""
    server, root = fsspec.core.url_to_fs(f"{storage}/tiny")
    return {
        path.removeprefix(root): server.cat_file(path)
        for path in stored_names(storage)
        if not path.endswith(LOCK_FILE)
    }


def has_checkpoint(storage: str) -> bool:
    """Of names alone: a running run renames files after they were listed."""
    return any(name.endswith("manifest.json") for name in stored_names(storage))


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_second_output_is_refused_and_takes_over_when_told(
    tmp_path: Path, storage: str, start: Start
) -> None:
    first = start("a", "train.steps=100000")
    wait_until(lambda: has_checkpoint(storage), timeout_s=300)
    # Alive: nobody else may, not even when told to take over.
    (line,) = errors_of([start("b", "train.take_over=true")])
    in_use = rf"{re.escape(storage)}/tiny is in use by a run on .* \(pid {first.pid}, since 2"
    assert re.search(in_use, line), line
    assert "choose another name or train.storage" in line
    first.send_signal(signal.SIGTERM)
    assert wait_for([first]) == [os.EX_TEMPFAIL]
    done, before = last_step(tmp_path / "a"), stored(storage)

    # Stopped: the copy is still the first run's.
    (line,) = errors_of([start("b", f"train.steps={done}")])
    assert f"{storage}/tiny is of another run: it writes to '{tmp_path / 'a'}'" in line
    assert "add train.take_over=true to go on with that run here" in line
    assert stored(storage) == before, "nothing there was touched"
    assert not checkpoints(tmp_path / "b")

    # Then its output is lost, and the advice is followed.
    curve = losses(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    texts, codes = said_by([start("b", f"train.steps={done + 1}", "train.take_over=true")])
    assert codes == [0]
    assert f"taking over {storage}/tiny from another run" in texts[0]
    assert losses(tmp_path / "b")[:done] == curve
    assert len(losses(tmp_path / "b")) == done + 1


@pytest.mark.parametrize("storage", ["local"], indirect=True)
def test_same_command_goes_on_on_a_machine_that_has_nothing(
    tmp_path: Path, storage: str, start: Start
) -> None:
    first = start("a", "train.steps=100000")
    wait_until(lambda: has_checkpoint(storage), timeout_s=300)
    first.kill()
    wait_for([first])
    shutil.rmtree(tmp_path / "a")
    killed = time.monotonic()
    assert wait_for([start("a", "train.steps=4")]) == [0]
    print(f"went on {time.monotonic() - killed:.1f} s after the kill")
    assert json.loads(stored(storage)["/owner.json"])["output"] == str(tmp_path / "a")
    before = stored(storage)

    # Another run that happens to have that output and that storage is another run.
    shutil.rmtree(tmp_path / "a")
    (line,) = errors_of([start("a", "train.steps=4", "optimizer.lr=0.5")])
    assert "is of another run" in line
    assert stored(storage) == before
    # And an output that holds a run may not be mixed with another's copy.
    assert wait_for([start("c", "train.steps=2", "name=other")]) == [0]
    (line,) = errors_of([start("c", "train.steps=4", "train.take_over=true")])
    assert f"{tmp_path / 'c'} holds another run; to go on with the one in storage, choose" in line
    assert stored(storage) == before


@pytest.mark.parametrize("storage", ["local", "s3"], indirect=True)
def test_two_that_start_at_once_leave_one(tmp_path: Path, storage: str, start: Start) -> None:
    ranks = [start(name, "train.steps=6") for name in ("a", "b")]
    texts, codes = said_by(ranks)
    assert sorted(codes) == [0, 1], texts
    winner = "ab"[codes.index(0)]
    assert "Traceback" not in texts[codes.index(1)]
    assert len(losses(tmp_path / winner)) == 6
    assert json.loads(stored(storage)["/owner.json"])["output"] == str(tmp_path / winner)


def test_holder_elsewhere_is_known_by_its_beats(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BEAT_S": 0.5, "STALE_S": 4.0, "LOOK_S": 0.2, "SETTLE_S": 0.5}.items():
        monkeypatch.setattr(storage_lock, name, value)
    folder = Folder(f"{bucket}/beats", Patience())
    holder = storage_lock.storage_lock(folder, instead="another")
    assert isinstance(holder, storage_lock.HeartbeatLock)
    holder._self["process"] = ["another kernel", "another namespace", 1, 1]
    holder.acquire()
    with pytest.raises(OSError, match=rf"{folder.url} is in use by .*choose another"):
        storage_lock.HeartbeatLock(folder, "another").acquire()
    holder._released.set()  # it is lost with its machine
    holder._heartbeat.join()
    start = time.monotonic()
    with storage_lock.locked_folder(folder.url, instead="another"):
        assert time.monotonic() - start > storage_lock.STALE_S
    assert LOCK_FILE not in folder.names()
