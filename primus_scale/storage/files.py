"""Atomic writes of local files: after a kill or on a full disk the earlier file is unchanged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to write to")
    with explain_failed_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_output_file(
    path: Path, suffixes: Sequence[str], what: str, is_such: Callable[[Path], bool]
) -> None:
    """Check before long work that a result may be written to ``path``; makes its folder.

    A file of the same kind is replaced. Any other stays as it is, since a mistyped name may be that
    of a recording, of an index or of somebody's notes. what: the kind, for messages. is_such:
    whether an existing file is of that kind. ValueError where the name has none of ``suffixes``,
    FileExistsError where something else lies there, OSError where the folder cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: {what} is written to a file {' or '.join(suffixes)}; name one")
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder; name a file in it, such as {path / path.name}"
        )
    if path.exists() and not is_such(path):
        raise FileExistsError(f"{path} is there already and is not {what}; name another file")
    check_writable(path.parent)


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
