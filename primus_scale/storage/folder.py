"""The few file operations that shard folders need, on any URL that fsspec knows.

Local paths, ``s3://``, ``gs://``, ``http://`` and others work alike. Credentials and endpoints
come from the usual places of each (for S3: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...), and
so do a file system's own settings (``FSSPEC_S3_CONFIG_KWARGS='{"read_timeout": 60}'``). A request
to storage that is not local is repeated as its ``Patience`` says; what is mounted is local, and
the system waits for it by itself.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from primus_scale.storage.patience import Patience, begin
from primus_scale.storage.urls import parse_place

STAGED = ".part"  # end of the names of files that are not whole yet, in local folders
_STREAM_BYTES = 8 * 2**20  # read at once by a stream


@dataclass(frozen=True)
class Folder:
    """A folder at a URL. Holds no open file system, so it may be used before and after a fork.

    ValueError where the URL has credentials in it. Where the storage does not answer, methods raise
    ConnectionError or TimeoutError in the end.
    """

    url: str
    patience: Patience = field(default_factory=Patience, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", parse_place(self.url))

    @property
    def local_path(self) -> Path | None:
        """Where the folder lies on this machine; None where it is elsewhere."""
        file_system, root = self._file_system()
        return Path(root or "/") if _is_local(file_system) else None

    def locate(self, name: str) -> str:
        """URL of the file ``name`` in this folder, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError where there is none."""
        return cast(bytes, self._ask("cat_file", name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends before."""
        end = offset + length
        return cast(bytes, self._ask("cat_file", name, size=length, start=offset, end=end))

    def open(self, name: str) -> BinaryIO:
        """A stream over the whole file, to be closed by the caller."""
        file_system, root = self._file_system()
        if _is_local(file_system):
            return cast(BinaryIO, file_system.open(f"{root}/{name}", "rb"))
        return cast(BinaryIO, io.BufferedReader(_RangeReader(self, name), _STREAM_BYTES))

    def size(self, name: str) -> int:
        """Size of the file in bytes; FileNotFoundError where there is none."""
        return int(self._ask("info", name)["size"])

    def names(self) -> list[str]:
        """Names of what lies in the folder, sorted; empty where there is no such folder."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file in the folder, by name; empty where there is no folder."""
        self._forget_listings()
        try:
            entries = self._ask("ls", detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: int(entry["size"] or 0)
            for entry in entries
        }

    def remove(self, name: str) -> None:
        """Delete the file ``name``."""
        self._ask("rm_file", name)

    def remove_all(self) -> None:
        """Delete the folder and all that lies in it, where it is there."""
        self._forget_listings()
        with suppress(FileNotFoundError):
            self._ask("rm", recursive=True)

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
            self.put(staged, name)

    def put(self, source: Path, name: str) -> None:
        """Copy the local file ``source`` here; it appears as ``name`` only once it is whole."""
        file_system, root = self._file_system()
        if _is_local(file_system):
            with self.staging(name) as staged:
                shutil.copyfile(source, staged)
            return
        target = f"{root}/{name}"
        self.patience.call(
            self.locate(name),
            lambda: begin(file_system, "put_file", str(source), target),
            source.stat().st_size,
        )

    def _ask(self, method: str, name: str = "", size: int = 0, **options: Any) -> Any:
        """What the file system's ``method`` gives for the file, or for the folder itself."""
        file_system, root = self._file_system()
        path = f"{root}/{name}" if name else root
        if _is_local(file_system):
            return getattr(file_system, method)(path, **options)
        url = self.locate(name) if name else self.url
        return self.patience.call(url, lambda: begin(file_system, method, path, **options), size)

    def _forget_listings(self) -> None:
        file_system, _ = self._file_system()
        file_system.invalidate_cache()  # listings of object stores are cached otherwise

    def _file_system(self) -> tuple[Any, str]:
        """File system and path; fsspec keeps one instance a process and thread."""
        file_system, root = fsspec.core.url_to_fs(self.url)
        return file_system, str(root).rstrip("/")


class _RangeReader(io.RawIOBase):
    """A file of a folder read front to back in ranges, each of which may be repeated."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._size, self._at = folder.size(name), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        data = self._folder.read_range(self._name, self._at, length) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


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
