"""Atomic writes of local files: after a kill or on a full disk the earlier file is unchanged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all; makes the folder if it does not exist.

    OSError naming the file where it cannot be written; an earlier file is then unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    with explain_failed_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be written to ``folder``, which is made, before long work starts.

    OSError naming the folder where that fails. The test file has no name, so none is left behind.
    """
    with explain_failed_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def explain_failed_write(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into one of the same kind with ``path`` and the next step."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path} ({error.strerror or error}); free some space there, or choose "
            "another output folder",
        ) from error
