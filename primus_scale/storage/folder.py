"""Read and write the files of a folder, at any URL that fsspec knows.

Local paths, ``s3://``, ``gs://``, ``http://`` and others work in the same way. Credentials and
endpoints come from where the storage's client looks for them (for S3: ``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ...), and so do its settings
(``FSSPEC_S3_CONFIG_KWARGS='{"read_timeout": 60}'``). Requests to remote storage are repeated
according to the folder's ``Patience``. Mounted storage counts as local: there the operating system
waits.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from primus_scale.storage.patience import Patience, start_request
from primus_scale.storage.urls import parse_place

STAGED = ".part"  # suffix of files that are not complete yet, in local folders
_STREAM_BYTES = 8 * 2**20  # that a stream reads in one request


@dataclass(frozen=True)
class Folder:
    """A folder at a URL. It holds no open connection, so it may be used before and after a fork.

    ValueError where the URL has credentials in it. Where the storage does not answer, methods raise
    ConnectionError or TimeoutError after the time that ``patience`` gives.
    """

    url: str
    patience: Patience = field(default_factory=Patience, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", parse_place(self.url))

    @property
    def local_path(self) -> Path | None:
        """The folder's path on this machine; None where it is in remote storage."""
        file_system, root = self._file_system()
        return Path(root or "/") if is_local(file_system) else None

    def locate(self, name: str) -> str:
        """URL of the file ``name`` in this folder, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError where there is none."""
        return cast(bytes, self._ask("cat_file", name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on; fewer if the file is shorter."""
        end = offset + length
        return cast(bytes, self._ask("cat_file", name, size=length, start=offset, end=end))

    def read_range_into(self, buffer: memoryview, name: str, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes came, fewer if the file is shorter."""
        if self._local_root is None:
            data = self.read_range(name, offset, len(buffer))
            buffer[: len(data)] = data
            return len(data)
        file = os.open(f"{self._local_root}/{name}", os.O_RDONLY)
        try:
            count = 0
            while count < len(buffer):
                got = os.preadv(file, [buffer[count:]], offset + count)
                if not got:
                    break
                count += got
            return count
        finally:
            os.close(file)

    def open(self, name: str) -> BinaryIO:
        """A stream over the whole file, to be closed by the caller."""
        file_system, root = self._file_system()
        if is_local(file_system):
            return cast(BinaryIO, file_system.open(f"{root}/{name}", "rb"))
        return cast(BinaryIO, io.BufferedReader(_RangeReader(self, name), _STREAM_BYTES))

    def size(self, name: str) -> int:
        """Size of the file in bytes; FileNotFoundError where there is none."""
        return int(self._ask("info", name)["size"])

    def names(self) -> list[str]:
        """Names of the files in the folder, sorted; empty where there is no such folder."""
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
        """Delete the folder with all its files, if it exists."""
        self._forget_listings()
        with suppress(FileNotFoundError):
            self._ask("rm", recursive=True)

    def create(self) -> None:
        """Make the folder; object storage needs none."""
        file_system, root = self._file_system()
        if is_local(file_system):
            Path(root).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A local path to write to; the file appears as ``name`` only if the block ends well.

        A local folder is staged within itself and renamed, so nothing is copied and the file is
        never seen half-written; object stores show an object only once it is whole.
        """
        file_system, root = self._file_system()
        if is_local(file_system):
            # A unique name, so that two programs that write the same file do not mix their bytes.
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

    def try_writing(self) -> None:
        """Write an empty file and delete it; OSError where that fails.

        For object storage, which tells only then that a bucket is missing or may not be written.
        """
        name = f".{uuid.uuid4().hex}{STAGED}"
        with self.staging(name) as staged:
            staged.touch()
        self.remove(name)

    def put(self, source: Path, name: str) -> None:
        """Copy the local file ``source`` here; it appears as ``name`` only once it is whole."""
        file_system, root = self._file_system()
        if is_local(file_system):
            with self.staging(name) as staged:
                shutil.copyfile(source, staged)
            return
        target = f"{root}/{name}"
        self.patience.call(
            self.locate(name),
            lambda: start_request(file_system, "put_file", str(source), target),
            source.stat().st_size,
        )

    def _ask(self, method: str, name: str = "", size: int = 0, **options: Any) -> Any:
        """The result of the file system's ``method`` for the file, or for the folder itself."""
        file_system, root = self._file_system()
        path = f"{root}/{name}" if name else root
        if is_local(file_system):
            return getattr(file_system, method)(path, **options)
        url = self.locate(name) if name else self.url
        return self.patience.call(
            url, lambda: start_request(file_system, method, path, **options), size
        )

    def _forget_listings(self) -> None:
        file_system, _ = self._file_system()
        file_system.invalidate_cache()  # listings of object stores are cached otherwise

    @cached_property
    def _local_root(self) -> str | None:
        """The folder's path where it is on this machine."""
        file_system, root = self._file_system()
        return root if is_local(file_system) else None

    def _file_system(self) -> tuple[Any, str]:
        """File system and path; fsspec keeps one instance for each process and thread."""
        file_system, root = fsspec.core.url_to_fs(self.url)
        return file_system, str(root).rstrip("/")


class _RangeReader(io.RawIOBase):
    """A file of a folder, read from start to end in ranges; each range is retried by itself."""

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


def is_local(file_system: Any) -> bool:
    """Whether an fsspec file system is that of this machine."""
    return bool(getattr(file_system, "local_file", False))
