"""Finished work of evaluations, in a file, so that an interrupted evaluation can continue.

Each line is a piece of work: a JSON object with ``key``, ``value`` and the ``seconds`` that it
took. The key is a digest of everything that the piece depends on, so work with other settings, data
or weights is never used.

Evaluations that have work in common (the same arm on the same labels) may share a file, also at the
same time. Then each *claims* what it begins, and leaves to another what that one has claimed: a
lock of the system on one byte of a file beside, which ends with its process. Work that two do all
the same, where a file system knows no locks, costs time and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.storage.files import explain_failed_write


class Claims:
    """What this process has begun, by key, so that others which share its file leave it alone."""

    def __init__(self, file: int | None) -> None:
        """file: the open file of the locks; without one every claim is free."""
        self._file = file

    def take(self, key: str) -> bool:
        """Claim ``key``, a digest; False where another process has it."""
        if self._file is not None:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
            except (BlockingIOError, PermissionError):  # the two ways of saying that it is held
                return False
            except OSError:  # the file system knows no locks
                pass
        return True

    def release(self, key: str) -> None:
        """Let others have ``key``."""
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(key))


class FinishedWork:
    """Finished pieces of work by key. Without a file they are kept in memory only.

    shared: other evaluations may use the file at the same time.
    """

    def __init__(self, path: Path | None = None, *, shared: bool = False):
        self._path = path
        self._shared = shared
        self._values: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._lacks_newline = False
        self.read()

    def read(self) -> None:
        """Read what is in the file now; incomplete lines, which a kill may leave, are ignored."""
        if self._path is None or not self._path.is_file():
            return
        content = self._path.read_bytes()
        self._lacks_newline = not content.endswith(b"\n")
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                self._values[entry["key"]] = entry["value"]
                self._seconds[entry["key"]] = float(entry["seconds"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue

    @contextmanager
    def claims(self) -> Iterator[Claims]:
        """The claims of this process; all are released at the end of the block.

        Raises OSError naming the file of the locks where it cannot be written.
        """
        if self._path is None or not self._shared:
            yield Claims(None)
            return
        path = self._path.with_name(f"{self._path.name}.lock")
        with explain_failed_write(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield Claims(file)
        finally:
            os.close(file)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def value(self, key: str) -> Any:
        """The value of a finished piece; KeyError of another."""
        return self._values[key]

    def keep(self, key: str, value: Any, seconds: float) -> None:
        """Add a piece and what it took; the value must be valid JSON.

        Raises OSError naming the file where it cannot be written.
        """
        self._values[key], self._seconds[key] = value, round(seconds, 4)
        self._append(key)

    def seconds(self, keys: Iterable[str]) -> float | None:
        """What pieces of work took together, each once; None where that of one is not known."""
        found = [self._seconds.get(key) for key in set(keys)]
        known = [one for one in found if one is not None]
        return sum(known) if len(known) == len(found) else None

    def _append(self, key: str) -> None:
        if self._path is None:
            return
        entry = {"key": key, "value": self._values[key], "seconds": self._seconds[key]}
        line = json.dumps(entry) + "\n"
        # One write for the line, since another evaluation may append to the file at the same time.
        data = ("\n" * self._lacks_newline + line).encode()
        with explain_failed_write(self._path), self._path.open("ab", buffering=0) as file:
            file.write(data)
        self._lacks_newline = False


def _place(key: str) -> int:
    """The byte that stands for a key: the file need not be so long for a lock on it."""
    return int(key[:15], 16)


def digest(*parts: Any) -> str:
    """A digest of JSON values, arrays, tensors and modules (their parameters and buffers)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            content = digest(*(item for pair in part.state_dict().items() for item in pair))
        elif isinstance(part, torch.Tensor | np.ndarray):
            array = part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part
            head = f"{array.dtype} {array.shape}".encode()
            content = hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
        else:
            content = hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
        total.update(content.encode())
    return total.hexdigest()
