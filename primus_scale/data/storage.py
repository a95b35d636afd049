"""The few file operations that shard folders need, on any URL that fsspec knows.

Local paths, ``s3://``, ``gs://``, ``http://`` and others work alike. Credentials and endpoints
come from the usual places of each (for S3: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...).
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

STAGED = ".part"  # end of the names of files that are not whole yet, in local folders


@dataclass(frozen=True)
class Folder:
    """A folder at a URL. Holds no open file system, so it may be used before and after a fork."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", str(self.url).rstrip("/") or "/")

    def locate(self, name: str) -> str:
        """URL of the file ``name`` in this folder, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError where there is none."""
        file_system, root = self._file_system()
        return cast(bytes, file_system.cat_file(f"{root}/{name}"))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends before."""
        file_system, root = self._file_system()
        path = f"{root}/{name}"
        return cast(bytes, file_system.cat_file(path, start=offset, end=offset + length))

    def open(self, name: str) -> BinaryIO:
        """A stream over the whole file, to be closed by the caller."""
        file_system, root = self._file_system()
        return cast(BinaryIO, file_system.open(f"{root}/{name}", "rb"))

    def size(self, name: str) -> int:
        """Size of the file in bytes; FileNotFoundError where there is none."""
        file_system, root = self._file_system()
        return int(file_system.info(f"{root}/{name}")["size"])

    def names(self) -> list[str]:
        """Names of what lies in the folder, sorted; empty where there is no such folder."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file in the folder, by name; empty where there is no folder."""
        file_system, root = self._file_system()
        file_system.invalidate_cache()  # listings of object stores are cached otherwise
        try:
            entries = file_system.ls(root, detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: int(entry["size"] or 0)
            for entry in entries
        }

    def remove(self, name: str) -> None:
        """Delete the file ``name``."""
        file_system, root = self._file_system()
        file_system.rm_file(f"{root}/{name}")

    def remove_all(self) -> None:
        """Delete the folder and all that lies in it, where it is there."""
        file_system, root = self._file_system()
        file_system.invalidate_cache()
        with suppress(FileNotFoundError):
            file_system.rm(root, recursive=True)

    def create(self) -> None:
        """Make the folder where the storage knows folders."""
        file_system, root = self._file_system()
        if _is_local(file_system):
            Path(root).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A local path to write to; the file appears as ``name`` only if the block ends well.

        A local folder is staged within itself and renamed, so nothing is copied and the file is
        never seen half-written; object stores show an object only once it is whole.
        """
        file_system, root = self._file_system()
        if _is_local(file_system):
            # A name of its own: two that write the same file must not write into each other's.
            staged = Path(root) / f".{name}.{uuid.uuid4().hex}{STAGED}"
            try:
                yield staged
                staged.replace(Path(root) / name)
            finally:
                staged.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="primus-scale-") as scratch:
            staged = Path(scratch) / name
            yield staged
            file_system.put_file(str(staged), f"{root}/{name}")

    def _file_system(self) -> tuple[Any, str]:
        """File system and path; fsspec keeps one instance a process and thread."""
        file_system, root = fsspec.core.url_to_fs(self.url)
        return file_system, str(root).rstrip("/")


@contextmanager
def explain_write_errors(url: str) -> Iterator[None]:
    """Turn an OSError of the block into one that names ``url`` and the next step."""
    try:
        yield
    except OSError as error:
        message = (
            f"cannot write to {url}: {error}; check that it is writable and has free space, "
            "then write the shards again"
        )
        if error.errno is None:
            raise OSError(message) from error
        raise OSError(error.errno, message) from error  # picks the subclass (PermissionError, ...)


def _is_local(file_system: Any) -> bool:
    return bool(getattr(file_system, "local_file", False))
