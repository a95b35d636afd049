"""The owner of the folder ``STORAGE/NAME``: only one run writes there.

    with owned_storage(folder, claimant):     # on every rank, at the same time
        ...

``owner.json`` in the folder names its run: a random number that is also in the run's output
(``run.json``), the path of the output, and a digest of the configuration. A run may continue from
the copy

- with its own output, also if that was moved;
- on a machine without that output, if path of output and configuration are the same: the first
  machine was lost, and the same command is started again;
- with ``train.take_over=true``, into an output that holds no run.

Any other run is refused, and so is every run while another process holds the folder's lock.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from primus_scale.checkpoint.copies import CHECKPOINTS
from primus_scale.checkpoint.manifest import sort_checkpoints
from primus_scale.distributed.collectives import on_first_rank
from primus_scale.distributed.run_lock import this_process
from primus_scale.distributed.storage_lock import storage_lock
from primus_scale.storage.files import write_atomically
from primus_scale.storage.folder import Folder
from primus_scale.storage.foreign import parse_json
from primus_scale.storage.names import quoted

OWNER_FILE = "owner.json"
RUN_FILE = "run.json"
SCHEMA = 1
INSTEAD = "another name or train.storage"
_RAY_COPY = "working_dir_files"  # Ray copies the working directory of a submitted job below it


@dataclass(frozen=True)
class Owner:
    """Content of ``owner.json``. run: number of the run. config: digest of its configuration."""

    run: str
    output: str
    config: str
    host: str
    since: str


@dataclass(frozen=True)
class Claimant:
    """The run that is to use the folder.

    config: digest of its configuration. take_over: whether it may continue the run of another
    output.
    """

    output: str
    config: str
    take_over: bool


@contextmanager
def owned_storage(folder: Folder | None, claimant: Claimant) -> Iterator[None]:
    """Hold the run's folder at ``train.storage``; every rank calls it. folder: None if unset.

    OSError on all ranks where another process holds the folder, ValueError where another run owns
    it.
    """
    if folder is None:
        yield
        return
    lock = storage_lock(folder, instead=INSTEAD)

    def claim() -> None:
        _check_apart(folder, claimant.output)
        lock.acquire()
        _claim(folder, claimant)

    try:
        on_first_rank(claim)
        yield
    finally:
        lock.release()


def _claim(folder: Folder, claimant: Claimant) -> None:
    """Record that the run of ``claimant`` owns ``folder``; ValueError where another run does.

    ``run.json`` is written first, so that a kill between the two leaves storage without an owner.
    """
    output, process = Path(claimant.output), this_process()
    owner, own = _read_owner(folder), _read_run(output / RUN_FILE)
    if owner is not None and owner.run != own:
        _check_may_take_over(folder, owner, claimant, own)
        own = owner.run
    run = own or uuid.uuid4().hex
    new = Owner(run, where(claimant.output), claimant.config, process["host"], process["since"])
    write_atomically(output / RUN_FILE, json.dumps({"run": run}) + "\n")
    folder.create()
    with folder.staging(OWNER_FILE) as path:
        text = json.dumps({"schema": SCHEMA, **asdict(new)}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def _check_may_take_over(folder: Folder, owner: Owner, claimant: Claimant, own: str | None) -> None:
    """ValueError where an output that is not the owner's may not continue from ``folder``."""
    checkpoints = Path(claimant.output) / CHECKPOINTS
    empty = own is None and not sort_checkpoints(path.name for path in checkpoints.glob("*"))
    same = (owner.output, owner.config) == (where(claimant.output), claimant.config)
    if own is None and (same or (empty and claimant.take_over)):
        if not same:
            print(f"taking over {folder.url} from {_describe(owner)}")
        return
    advice = "add train.take_over=true to go on with that run here, where its output is lost"
    if not empty:
        advice = (
            f"{claimant.output} holds another run; to go on with the one in storage, choose an "
            "empty output and add train.take_over=true"
        )
    raise ValueError(f"{folder.url} is of {_describe(owner)}; choose {INSTEAD}, or {advice}")


def where(folder: str) -> str:
    """The path of the output ``folder``, the same on all machines and starts of a run.

    It is absolute, except where the working directory is a copy that Ray made for a submitted job:
    that has another path for each job.
    """
    output = Path(folder)
    return str(output if _RAY_COPY in Path.cwd().parts else output.resolve())


def _read_owner(folder: Folder) -> Owner | None:
    """The owner; None where there is none yet, ValueError where the file is damaged."""
    place = folder.locate(OWNER_FILE)
    try:
        tree = parse_json(folder.read(OWNER_FILE), place)
    except FileNotFoundError:
        return None
    names = [field.name for field in fields(Owner)]
    if not isinstance(tree, dict) or not all(_is_text(tree.get(name)) for name in names):
        raise ValueError(
            f"{place} does not name the run that owns the folder; remove it, and start that run"
        )
    return Owner(**{name: tree[name] for name in names})


def _read_run(path: Path) -> str | None:
    """The number of the run in an output; None where there is none."""
    try:
        tree = parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    if not isinstance(tree, dict) or not _is_text(tree.get("run")):
        raise ValueError(f"{path} does not name a run; remove it, or choose another output")
    return str(tree["run"])


def _check_apart(folder: Folder, output: str) -> None:
    if folder.local_path is not None and folder.local_path == Path(output).absolute():
        raise ValueError(
            f"the run's folder at train.storage, {folder.url}, is the output {output} itself; "
            "choose another train.storage, or leave it unset"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096


def _describe(owner: Owner) -> str:
    return (
        f"another run: it writes to {quoted(owner.output)} on {quoted(owner.host)}, last begun "
        f"{quoted(owner.since)}"
    )
