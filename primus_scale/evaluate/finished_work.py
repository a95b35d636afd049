"""What an evaluation has finished, on disk, so that one which was interrupted goes on from there.

A file of lines, each one piece of work: a JSON object of ``key`` and ``value``. The key is a digest
of all that the piece depends on, so a piece of other settings, data or weights is never taken for
it, and evaluations that have work in common (the same arm on the same labels) may share the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.storage.files import explain_failed_write


class FinishedWork:
    """Pieces of work by key. Without a file nothing is kept."""

    def __init__(self, path: Path | None = None):
        """Read what is finished; lines that a kill cut short count as not done."""
        self._path = path
        self._values: dict[str, Any] = {}
        self._lacks_newline = False
        if path is not None and path.is_file():
            content = path.read_bytes()
            self._lacks_newline = not content.endswith(b"\n")
            for line in content.splitlines():
                try:
                    entry = json.loads(line)
                    self._values[entry["key"]] = entry["value"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue

    def get(self, key: str, work: Callable[[], Any]) -> Any:
        """The value of a piece; ``work`` is done, and its JSON value kept, if it is not there.

        Raises OSError naming the file where that cannot be written.
        """
        if key not in self._values:
            self._values[key] = work()
            self._keep(key)
        return self._values[key]

    def _keep(self, key: str) -> None:
        if self._path is None:
            return
        line = json.dumps({"key": key, "value": self._values[key]}) + "\n"
        # In one write, since another evaluation may be adding to the file as well.
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
