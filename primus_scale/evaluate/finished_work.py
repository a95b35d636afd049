"""Finished work of evaluations, in a file, so that an interrupted evaluation can continue.

Each line is a piece of work: a JSON object with ``key``, ``value`` and the ``seconds`` that it
took. The key is a digest of everything that the piece depends on, so work with other settings, data
or weights is never used. Evaluations that have work in common (the same arm on the same labels) may
share a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.storage.files import explain_failed_write


class FinishedWork:
    """Finished pieces of work by key. Without a file they are kept in memory only."""

    def __init__(self, path: Path | None = None):
        """Read the file; incomplete lines, which a kill may leave, are ignored."""
        self._path = path
        self._values: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._lacks_newline = False
        if path is not None and path.is_file():
            content = path.read_bytes()
            self._lacks_newline = not content.endswith(b"\n")
            for line in content.splitlines():
                try:
                    entry = json.loads(line)
                    self._values[entry["key"]] = entry["value"]
                    self._seconds[entry["key"]] = float(entry["seconds"])
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue

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
