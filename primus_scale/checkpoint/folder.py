"""The folder of a run's checkpoints: make one current, remove old ones, find the newest whole one.

Machines may share the folder. If they do not, ranks write to the folder of their machine, and
``train.storage`` joins the files. The *leader* of a folder, the first rank that uses it, does what
is to be done once in each folder. Rank 0 is always a leader.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from primus_scale.checkpoint.copies import CHECKPOINTS, RunStorage
from primus_scale.checkpoint.manifest import (
    ENCODER,
    MANIFEST,
    check_file,
    dump_manifest,
    flush,
    read_manifest,
    sort_checkpoints,
)
from primus_scale.checkpoint.room import check_room
from primus_scale.distributed.collectives import broadcast_json, on_all_ranks, rank, world_size
from primus_scale.engine.zero_state import check_readable
from primus_scale.storage.files import explain_failed_write, write_atomically

log = logging.getLogger(__name__)


class CheckpointFolder:
    """``output/checkpoints`` and its copy in ``storage``, if there is one.

    keep: how many checkpoints are kept. Every rank calls the same methods at the same time, except
    where the method says otherwise.
    """

    def __init__(self, output: str, storage: RunStorage | None, keep: int) -> None:
        self.path = Path(output) / CHECKPOINTS
        self._storage = storage
        self._keep = keep

    @cached_property
    def leads(self) -> bool:
        """Whether this rank is the leader of its folder; every rank calls it at the same time.

        ValueError where ranks have different folders and no common storage; OSError where a folder
        cannot be written.
        """
        first = _first_to_see(self.path)
        if self._storage is None and sum(first) > 1:
            raise ValueError(
                f"{self.path} is not the same folder for all ranks; choose an output on storage "
                "that all machines share, or set train.storage"
            )
        return first[rank()]

    def newest(self) -> str | None:
        """Name of the newest checkpoint here; None where there is none."""
        return next(reversed(_existing(self.path)), None)

    def check_room(self, sizes: Mapping[str, int]) -> None:
        """OSError where a checkpoint of ``sizes`` will not fit here, or into local storage.

        Remote storage gives no free size; ``owned_storage`` has tested before that it can be
        written.
        """
        places = [(self.path, "another output")]
        if self._storage is not None and rank() == 0 and self._storage.local_path is not None:
            places.append((self._storage.local_path / CHECKPOINTS, "another train.storage"))
        for folder, instead in places:
            copies = max(self._keep + 1 - len(_existing(folder)), 1)
            check_room(folder, sizes, copies, instead)

    def clear(self) -> None:
        """Remove incomplete files, which kills and full disks have left."""
        for path in self.path.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def make_current(self, final: Path, manifest: Mapping[str, Any]) -> None:
        """Write the manifest into ``partial_of(final)``, rename it, and remove old checkpoints.

        Only the leader of a folder calls it.
        """
        written = partial_of(final)
        (written / MANIFEST).write_text(dump_manifest(manifest), encoding="utf-8")
        flush((written / MANIFEST, *(path for path in written.iterdir() if path.is_dir()), written))
        # A checkpoint of this name is damaged: the run would have resumed from a whole one.
        shutil.rmtree(final, ignore_errors=True)
        written.rename(final)
        flush([self.path])
        for name in _outdated(_existing(self.path), final.name, self._keep):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def copy(self, final: Path, names: Iterable[str]) -> None:
        """Copy the files ``names``, which this rank wrote, to storage; OSError where that fails."""
        storage = self._storage
        if storage is None:
            return

        def finish() -> None:
            storage.put_files(final, [MANIFEST])
            for name in _outdated(storage.checkpoints(), final.name, self._keep):
                storage.remove(name)

        try:
            on_all_ranks(lambda: storage.put_files(final, names))
            on_all_ranks(lambda: finish() if rank() == 0 else None)
        except (ConnectionError, TimeoutError):
            raise  # their messages are complete, and a retry may help
        except OSError as error:
            raise OSError(
                f"checkpoint {final} could not be copied to {storage.url} ({error}); mend that or "
                "choose another train.storage, and start again to go on from the checkpoint"
            ) from error

    def find_whole(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint and its manifest; None where there is no checkpoint.

        Files that a folder does not have are copied from storage. A damaged checkpoint is skipped
        with a warning. ValueError where all are damaged, OSError where storage does not answer.
        """
        candidates = on_all_ranks(lambda: self._candidates() if rank() == 0 else None)[0]
        for name, manifest in candidates:
            folder = self.path / name
            complete = partial(self._complete, folder, manifest)
            damage = next(filter(None, on_all_ranks(complete)), None)
            if damage is None:
                return folder, manifest
            if rank() == 0:
                _warn_damaged(folder, damage)
        if candidates:
            raise ValueError(self._none_whole())
        return None

    def _candidates(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and manifests of all checkpoints, here and in storage, newest first."""
        here = _existing(self.path)
        stored = self._storage.checkpoints() if self._storage is not None else []
        candidates: list[tuple[str, dict[str, Any]]] = []
        damaged = bool(here)
        for name in reversed(sort_checkpoints([*here, *stored])):
            if name in here:
                try:
                    candidates.append((name, read_manifest(self.path / name)))
                except (OSError, ValueError) as error:
                    _warn_damaged(self.path / name, error)
            if self._storage is not None and name in stored:
                try:
                    candidate = (name, self._storage.manifest(name))
                    candidates += [candidate] if candidate not in candidates else []
                except FileNotFoundError:
                    log.info("the copy of %s in %s was interrupted", name, self._storage.url)
                except ValueError as error:
                    damaged = True
                    _warn_damaged(self.path / name, error)
        if damaged and not candidates:
            raise ValueError(self._none_whole())
        return candidates

    def _none_whole(self) -> str:
        copies = f" and {self._storage.url}" if self._storage is not None else ""
        return _none_whole(f"{self.path}{copies}")

    def _complete(self, folder: Path, manifest: Mapping[str, Any]) -> str | None:
        """Copy missing files from storage; returns what is wrong if ``folder`` is not whole."""
        for name, entry in manifest["files"].items() if self.leads else ():
            try:
                check_file(folder, name, entry)
            except (OSError, ValueError) as error:
                if self._storage is None:
                    return str(error)
                try:
                    self._storage.fetch_file(folder, name, entry)
                except (FileNotFoundError, ValueError) as missing:
                    return str(missing)
        if not self.leads:
            return None
        try:
            check_readable(folder, manifest["files"])
        except ValueError as error:
            return str(error)
        if self._storage is not None:
            write_atomically(folder / MANIFEST, dump_manifest(manifest))
        return None


def partial_of(final: Path) -> Path:
    """Where a checkpoint is written before it becomes ``final``."""
    return final.with_name(f".{final.name}.partial")


def newest_encoder(output: str | Path) -> Path:
    """Folder of the newest whole encoder in the checkpoints of the run in ``output``.

    FileNotFoundError where there is no checkpoint; ValueError where all are damaged.
    """
    folder = Path(output) / CHECKPOINTS
    existing = _existing(folder)
    for name in reversed(existing):
        try:
            for file, entry in read_manifest(folder / name)["files"].items():
                if file.startswith(f"{ENCODER}/"):
                    check_file(folder / name, file, entry)
            return folder / name / ENCODER
        except (OSError, ValueError) as error:
            _warn_damaged(folder / name, error)
    if existing:
        raise ValueError(_none_whole(str(folder)))
    raise FileNotFoundError(f"{folder} holds no checkpoint; give the output folder of a run")


def _first_to_see(folder: Path) -> list[bool]:
    """For each rank, whether it is the first of the ranks that share ``folder``, which is made."""
    if world_size() == 1:
        return [True]
    token = broadcast_json(uuid.uuid4().hex)
    marks = [folder / f".{token}.{number}" for number in range(world_size())]

    def leave_mark() -> None:
        with explain_failed_write(folder):
            folder.mkdir(parents=True, exist_ok=True)
            marks[rank()].touch()

    on_all_ranks(leave_mark)
    first = on_all_ranks(lambda: not any(mark.exists() for mark in marks[: rank()]))
    marks[rank()].unlink(missing_ok=True)  # rank 0 may have cleared the folder already
    return first


def _existing(folder: Path) -> list[str]:
    """Names of the checkpoints in ``folder``, oldest first."""
    return sort_checkpoints(path.name for path in folder.glob("step-*"))


def _outdated(existing: list[str], newest: str, keep: int) -> list[str]:
    """The checkpoints to remove: all but the last ``keep`` up to ``newest``, just written.

    Those of later steps are damaged, since otherwise the run would have resumed from them.
    """
    count = existing.index(newest) + 1
    return existing[: max(count - keep, 0)] + existing[count:]


def _warn_damaged(folder: Path, reason: object) -> None:
    log.warning("passing over the damaged checkpoint %s: %s", folder, reason)


def _none_whole(folders: str) -> str:
    return (
        f"none of the checkpoints in {folders} is whole; restore one from a copy, or remove all of "
        "them to start from the beginning"
    )
