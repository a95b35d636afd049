"""What a library of C++ writes to standard output and error, kept from the user."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_lines() -> Iterator[list[str]]:
    """Lines written to standard output and error in the block, by C++ code too; filled after it.

    Only there projectaria-tools reports missing records, next to a line for each stream it opens.
    """
    lines: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as log:
        for number in kept:
            os.dup2(log.fileno(), number)
        try:
            yield lines
        finally:
            for number, before in kept.items():
                os.dup2(before, number)
                os.close(before)
            log.seek(0)
            lines += log.read().decode(errors="replace").splitlines()
