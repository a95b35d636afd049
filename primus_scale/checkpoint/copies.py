"""The copy of a run's files at ``train.storage``, on any file system that fsspec knows.

    STORAGE/NAME/checkpoints/step-00000250/manifest.json, state/..., support/..., encoder/...
    STORAGE/NAME/metrics.jsonl, tensorboard/..., encoder/...
    STORAGE/NAME/owner.json, run.lock                  the run that owns it (``owner``)

With the copy a run can continue on another machine when one is lost, and machines need no shared
folder: each copies the files that its ranks wrote, and fetches all files when it resumes. The
manifest of a checkpoint is copied last and deleted first, so a checkpoint with a manifest is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from primus_scale.checkpoint.manifest import (
    MANIFEST,
    check_size,
    file_entry,
    parse_manifest,
    sort_checkpoints,
)
from primus_scale.storage.folder import Folder
from primus_scale.storage.names import check_name, path_in
from primus_scale.storage.patience import Patience
from primus_scale.storage.urls import parse_place

CHECKPOINTS = "checkpoints"


class RunStorage:
    """The copy of one run's files at ``url``. Methods raise OSError where that does not answer."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url = parse_place(url)
        self._patience = patience
        self._put_before: dict[Path, tuple[int, int]] = {}  # results: size and modification time

    @property
    def local_path(self) -> Path | None:
        """The copy's path on this machine; None where it is in remote storage."""
        return self._at().local_path

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, oldest first, incomplete ones included."""
        return sort_checkpoints(self._at(CHECKPOINTS).names())

    def manifest(self, checkpoint: str) -> dict[str, Any]:
        """A checkpoint's manifest; FileNotFoundError if it has none yet, ValueError if damaged."""
        folder = self._at(CHECKPOINTS, checkpoint)
        check_size(folder.size(MANIFEST), folder.locate(MANIFEST))
        return parse_manifest(folder.read(MANIFEST), checkpoint, folder.locate(MANIFEST))

    def put_files(self, folder: Path, names: Iterable[str]) -> None:
        """Copy the files ``names`` of the checkpoint in ``folder``."""
        for name in names:
            self._put(folder / name, CHECKPOINTS, folder.name, *Path(name).parent.parts)

    def fetch_file(self, folder: Path, name: str, entry: Mapping[str, Any]) -> None:
        """Copy the file ``name`` into the checkpoint in ``folder``.

        entry: size and sha256 of the file in the manifest. FileNotFoundError where the file is
        missing, ValueError where it does not fit its entry.
        """
        *folders, file = check_name(name, str(folder / MANIFEST)).split("/")
        target = path_in(folder, name, str(folder / MANIFEST))
        source = self._at(CHECKPOINTS, folder.name, *folders)
        # Check the size first: a wrong file may be larger than this machine's disk.
        whole = source.size(file) == entry["size"]
        partial = _fetch(source, file, target) if whole else None
        if partial is None or file_entry(partial) != entry:
            if partial is not None:
                partial.unlink()
            raise ValueError(f"{source.locate(file)} is not what was written")
        partial.replace(target)

    def remove(self, checkpoint: str) -> None:
        """Delete a checkpoint."""
        folder = self._at(CHECKPOINTS, checkpoint)
        if MANIFEST in folder.names():
            folder.remove(MANIFEST)
        folder.remove_all()

    def put_results(self, output: Path, names: Iterable[str]) -> None:
        """Copy those of ``names``, files or folders of files, that are in ``output``.

        Files that have not changed since they were last copied are not copied again.
        """
        for name in names:
            folders = () if (output / name).is_file() else (name,)
            for path in sorted((output / name).glob("*")) if folders else [output / name]:
                state = path.stat()
                if self._put_before.get(path) != (state.st_size, state.st_mtime_ns):
                    self._put(path, *folders)
                    self._put_before[path] = state.st_size, state.st_mtime_ns

    def fetch_results(self, output: Path, names: Iterable[str]) -> None:
        """Copy those of ``names``, files or folders of files, that are stored to ``output``."""
        stored = self._at().names()
        for name in set(names).intersection(stored):
            inside = self._at(name).names()  # some storages list a file as if it were in itself
            if inside in ([], [name]):
                _fetch_whole(self._at(), name, output)
                continue
            for file in inside:
                _fetch_whole(self._at(name), file, path_in(output, name, self.url))

    def _put(self, path: Path, *folders: str) -> None:
        target = self._at(*folders)
        target.create()
        target.put(path, path.name)

    def _at(self, *folders: str) -> Folder:
        return Folder("/".join((self.url, *folders)), self._patience)


def _fetch_whole(source: Folder, name: str, folder: Path) -> None:
    """Copy a file of ``source`` into ``folder``; ValueError where its name leads out of it."""
    check_name(name, source.url, plain=True)
    target = path_in(folder, name, source.url)
    _fetch(source, name, target).replace(target)


def _fetch(source: Folder, name: str, target: Path) -> Path:
    """Copy a file of ``source`` next to ``target``, under a temporary name; returns its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with source.open(name) as stream, partial.open("wb") as file:
        shutil.copyfileobj(stream, file, 2**20)
    return partial
