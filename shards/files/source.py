"""The place of raw recordings: a folder or a single file at any URL that fsspec knows."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

import fsspec

from primus_scale.storage.folder import is_local
from primus_scale.storage.names import quoted
from primus_scale.storage.urls import parse_place
from shards.files.walk import walk

# Names under which storages give a file's version, the most reliable first.
_VERSION_KEYS = (
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

    inside: refuse links that lead out of the folder (of local ones; others have none). skipped:
    what ``find`` skipped, by path, with the reason. Holds no open file, so it can be
    sent to other processes. ValueError where the URL has credentials in it; from methods, for a
    path that leads out of the folder and for one of no regular file.
    """

    def __init__(self, url: str, *, inside: bool = False) -> None:
        self.url = parse_place(url)
        self.inside = inside
        self.skipped: dict[str, str] = {}

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
        if is_local(file_system):
            walked = walk(Path(root), pattern, inside=self.inside)
            self.skipped.update(walked.skipped)
            return walked.files
        found = file_system.glob(f"{glob.escape(root)}/{pattern}", detail=True)
        prefix = root.rstrip("/") + "/"
        files = (path for path, info in found.items() if info["type"] != "directory")
        return sorted(str(path).removeprefix(prefix) for path in files)

    def exists(self, path: str) -> bool:
        """Whether there is a file at ``path``."""
        file_system, _ = self._file_system()
        return bool(file_system.exists(self._path(path)))

    def version(self, path: str) -> str:
        """Text that changes with the file: its size, and its ETag or time of change.

        FileNotFoundError where there is none.
        """
        file_system, _ = self._file_system()
        info = file_system.info(self._path(path))
        versions = (info[name] for name in _VERSION_KEYS if info.get(name))
        return f"{info['size']} {next(versions, '')}"

    def open(self, path: str) -> BinaryIO:
        """A seekable stream over the file, read in ranges where it is remote."""
        file_system, _ = self._file_system()
        return cast(BinaryIO, file_system.open(self._regular(path), "rb"))

    def read_whole(self, path: str, most: int) -> bytes:
        """The whole file where it has at most ``most`` bytes; ValueError where it is longer."""
        with self.open(path) as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise ValueError(
                f"{self.locate(path)} is longer than {most:,} bytes, which no such file is; "
                "check that it is the right one"
            )
        return data

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A local path to the file, for libraries that open paths only.

        A remote file is copied to a scratch folder in pieces and removed after the block.
        """
        file_system, _ = self._file_system()
        if is_local(file_system):
            yield Path(self._regular(path))
            return
        with tempfile.TemporaryDirectory(prefix="primus-scale-") as scratch:
            target = Path(scratch) / PurePosixPath(path).name
            with self.open(path) as stream, target.open("wb") as file:
                while data := stream.read(_COPY_BYTES):
                    file.write(data)
            yield target

    def _path(self, path: str) -> str:
        if path.startswith("/") or ".." in {*path.split("/"), *unquote(path).split("/")}:
            raise ValueError(
                f"{quoted(path)} leads out of {self.url}; files must lie there or below"
            )
        _, root = self._file_system()
        return root if self._single else f"{root}/{path}"

    def _regular(self, path: str) -> str:
        """The path to open. ValueError for other kinds of file, which might never end."""
        file_system, root = self._file_system()
        full = self._path(path)
        if is_local(file_system):
            if not stat.S_ISREG(Path(full).stat().st_mode):
                raise ValueError(
                    f"{self.locate(path)} is no regular file; give a file with the data in it"
                )
            real = Path(os.path.realpath(full))
            if self.inside and not self._single and not real.is_relative_to(os.path.realpath(root)):
                raise ValueError(
                    f"{self.locate(path)} is a link that leads out of {self.url}, to {real}; copy "
                    "the file, or allow such links with --option follow_links=true"
                )
        return full

    @cached_property
    def _single(self) -> str | None:
        """The URL where it is that of one file; asked once: object stores take 20 ms to answer."""
        file_system, root = self._file_system()
        return self.url if file_system.isfile(root) else None

    def _file_system(self) -> tuple[Any, str]:
        file_system, root = fsspec.core.url_to_fs(self.url)
        return file_system, str(root).rstrip("/") or "/"
