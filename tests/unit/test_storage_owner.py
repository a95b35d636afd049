"""Whose the folder at ``train.storage`` is: the record there, and who may go on from it."""

import json
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from primus_scale.checkpoint.owner import OWNER_FILE, owned_storage
from primus_scale.config import Config
from primus_scale.distributed import run_lock, storage_lock
from primus_scale.distributed.run_lock import LOCK_FILE
from primus_scale.distributed.storage_lock import HeartbeatLock, is_running, own_process
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience
from primus_scale.train.run import storage_claimant, storage_folder
from tests.integration.tiny import tiny_config

Places = tuple[str, Path]


@pytest.fixture(params=["local", "object"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Places:
    """A storage, and a folder for outputs."""
    for module in (run_lock, storage_lock):
        for name in ("ENDING_S", "SETTLE_S", "LOOK_S"):
            monkeypatch.setattr(module, name, 0.1)
    local = request.param == "local"
    return str(tmp_path / "storage") if local else f"memory://owner/{tmp_path.name}", tmp_path


def config(places: Places, output: str, *overrides: str) -> Config:
    storage, folder = places
    return tiny_config(folder / output, "shards", f"train.storage={storage}", *overrides)


def owned(config: Config) -> AbstractContextManager[None]:
    return owned_storage(storage_folder(config), storage_claimant(config))


def claim(places: Places, output: str, *overrides: str) -> str:
    """The number of the run that owns the storage while the output writes there."""
    with owned(config(places, output, *overrides)):
        folder = Folder(f"{places[0]}/tiny")
        assert LOCK_FILE in folder.names()
        run = str(json.loads(folder.read(OWNER_FILE))["run"])
    assert LOCK_FILE not in folder.names()
    assert json.loads((places[1] / output / "run.json").read_text()) == {"run": run}
    return run


def test_an_output_goes_on_also_where_it_was_moved_or_lost(places: Places) -> None:
    run = claim(places, "a")
    assert claim(places, "a", "optimizer.lr=0.5") == run  # its checkpoints will say what differs
    (places[1] / "a").rename(places[1] / "moved")
    assert claim(places, "moved") == run
    shutil.rmtree(places[1] / "moved")
    assert claim(places, "moved") == run


@pytest.mark.parametrize(
    ("output", "override"), [("b", "seed=0"), ("a", "optimizer.lr=0.5"), ("b", "seed=1")]
)
def test_another_output_is_refused_until_it_is_told_to_take_over(
    places: Places, output: str, override: str
) -> None:
    run = claim(places, "a")
    shutil.rmtree(places[1] / "a")
    advice = r"tiny is of another run: it writes to '.*/a' .*add train\.take_over=true"
    with pytest.raises(ValueError, match=advice):
        claim(places, output, override)
    assert not (places[1] / output / "run.json").exists()
    assert claim(places, output, override, "train.take_over=true") == run
    assert claim(places, output, override) == run, "once is enough"


def test_an_output_with_a_run_of_its_own_never_takes_over(places: Places) -> None:
    run = claim(places, "a")
    (places[1] / "b/checkpoints/step-00000003").mkdir(parents=True)
    (places[1] / "c").mkdir()
    (places[1] / "c/run.json").write_text('{"run": "another"}')
    for output in ("b", "c"):
        with pytest.raises(ValueError, match=f"{output} holds another run; .*an empty output"):
            claim(places, output, "train.take_over=true")
    assert claim(places, "a") == run


def test_a_living_holder_is_refused_even_to_its_own_output(places: Places) -> None:
    in_use = r"/tiny is in use by .*; wait for its end, stop it, or choose another name"
    with owned(config(places, "a")):
        for output, override in (("a", "seed=0"), ("b", "train.take_over=true")):
            with pytest.raises(OSError, match=in_use):
                claim(places, output, override)
    claim(places, "a")


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"run": 3}', b"[" * 100_000, b"\xff"])
def test_a_damaged_record_is_an_error_that_names_it(places: Places, left: bytes) -> None:
    claim(places, "a")
    folder = Folder(f"{places[0]}/tiny")
    with folder.staging(OWNER_FILE) as path:
        path.write_bytes(left)
    with pytest.raises(ValueError, match=r"tiny/owner\.json"):
        claim(places, "a")
    folder.remove(OWNER_FILE)
    claim(places, "a")


def test_the_output_itself_is_no_storage(tmp_path: Path) -> None:
    same = tiny_config(tmp_path / "tiny", "shards", f"train.storage={tmp_path}")
    with pytest.raises(ValueError, match=r"is the output .* itself"), owned(same):
        pass


def test_a_name_is_no_way_out_of_the_storage(places: Places) -> None:
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(ValueError, match="name"):
            config(places, "a", f"name={name}")


def test_a_process_is_told_from_one_that_ended() -> None:
    me = own_process(os.getpid())
    assert me is not None
    assert is_running(me) is True
    assert is_running([*me[:3], me[3] + 1]) is False, "its number was given to another"
    assert is_running(["another kernel", *me[1:]]) is None
    for unknown in (None, {}, [], me[:2], "x", [*me[:2], "1", 2]):
        assert is_running(unknown) is not True


@pytest.mark.parametrize(
    "left", [b"", b"{}", b"[1]", b'{"holder": 3, "process": 7, "pid": "\\u001b"}']
)
def test_a_lock_that_says_nothing_is_watched_for_a_while(
    monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    monkeypatch.setattr(storage_lock, "SETTLE_S", 0.0)
    monkeypatch.setattr(storage_lock, "STALE_S", 0.3)
    monkeypatch.setattr(storage_lock, "LOOK_S", 0.1)
    folder = Folder("memory://lock-that-says-nothing", Patience())
    with folder.staging(LOCK_FILE) as path:
        path.write_bytes(left)
    lock = HeartbeatLock(folder, "another")
    lock.acquire()
    assert json.loads(folder.read(LOCK_FILE))["pid"] == os.getpid()
    lock.release()
    assert folder.names() == []
