"""The name that a user may have meant, for the end of a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from primus_scale.storage.names import quoted

_LONGEST, _MOST = 100, 1000  # characters, and names, beyond which comparing takes long


def nearest(name: str, known: Iterable[str]) -> str:
    """``; the nearest is '…'``, or nothing where nothing is known."""
    near = difflib.get_close_matches(name[:_LONGEST], list(known)[:_MOST], n=1, cutoff=0.0)
    return f"; the nearest is {quoted(near[0])}" if near else ""
