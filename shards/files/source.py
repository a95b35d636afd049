"""Where raw recordings lie: a folder or a single file at any URL that fsspec knows."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec

from primus_scale.urls import parse_place

# Names under which storages tell that a file is another one now, the surest first.
_STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
_COPY_BYTES = 8 * 2**20


class Source:
    """The folder at ``url``, or the folder of the one file at ``url``; paths are relative to it.

    Holds no open file, so it can be sent to other processes. ValueError where the URL has
    credentials in it.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_place(url)

    def locate(self, path: str) -> str:
        """URL of the file at ``path``, for messages."""
        return self._single or f"{self.url}/{path}"

    def folder(self, path: str) -> str:
        """Name of the folder that the file at ``path`` lies in, the source's or one below it."""
        return PurePosixPath(self._path(path)).parent.name

    def check(self) -> None:
        """FileNotFoundError naming the URL where nothing lies there (any more)."""
        file_system, root = self._file_system()
        file_system.invalidate_cache()
        if not file_system.exists(root):
            raise FileNotFoundError(f"no {self.url}; check --src, and that its storage is mounted")

    def find(self, pattern: str) -> list[str]:
        """Relative paths of the files that match a glob pattern (``**`` goes down), sorted."""
        file_system, root = self._file_system()
        single = self._single
        if single:
            name = PurePosixPath(single).name
            return [name] if fnmatch(name, PurePosixPath(pattern).name) else []
        found = file_system.glob(f"{glob.escape(root)}/{pattern}", detail=True)
        prefix = root.rstrip("/") + "/"
        files = (path for path, info in found.items() if info["type"] != "directory")  # links too
        return sorted(str(path).removeprefix(prefix) for path in files)

    def exists(self, path: str) -> bool:
        """Whether there is a file at ``path``."""
        file_system, _ = self._file_system()
        return bool(file_system.exists(self._path(path)))

    def version(self, path: str) -> str:
        """Text that is another when the file has changed: its size, and its ETag or time of change.

        FileNotFoundError where there is none.
        """
        file_system, _ = self._file_system()
        info = file_system.info(self._path(path))
        stamps = (info[name] for name in _STAMPS if info.get(name))
        return f"{info['size']} {next(stamps, '')}"

    def open(self, path: str) -> BinaryIO:
        """A seekable stream over the file, read in ranges where it is remote."""
        file_system, _ = self._file_system()
        return cast(BinaryIO, file_system.open(self._path(path), "rb"))

    def read_json(self, path: str) -> Any:
        """The JSON file at ``path``; ValueError naming it where it is empty or damaged."""
        with self.open(path) as stream:
            data = stream.read()
        try:
            return json.loads(data)
        except ValueError as error:
            raise ValueError(
                f"{self.locate(path)} is no JSON ({error}); download it again"
            ) from None

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A local path to the file, for libraries that open paths only.

        A remote file is copied to a scratch folder in pieces and removed after the block.
        """
        file_system, _ = self._file_system()
        if getattr(file_system, "local_file", False):
            yield Path(self._path(path))
            return
        with tempfile.TemporaryDirectory(prefix="primus-scale-") as scratch:
            target = Path(scratch) / PurePosixPath(path).name
            with self.open(path) as stream, target.open("wb") as file:
                while data := stream.read(_COPY_BYTES):
                    file.write(data)
            yield target

    def _path(self, path: str) -> str:
        _, root = self._file_system()
        return root if self._single else f"{root}/{path}"

    @cached_property
    def _single(self) -> str | None:
        """The URL where it is that of one file; asked once, for object stores answer in 20 ms."""
        file_system, root = self._file_system()
        return self.url if file_system.isfile(root) else None

    def _file_system(self) -> tuple[Any, str]:
        file_system, root = fsspec.core.url_to_fs(self.url)
        return file_system, str(root).rstrip("/") or "/"
