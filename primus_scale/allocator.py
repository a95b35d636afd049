"""How the C library gives freed memory back to the system: not between two steps.

By default glibc gives large blocks back as soon as they are free, and a training step on a CPU
takes and frees the same blocks each time. The system then clears some thousand pages a step.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_MB = 2**20
LARGEST_KEPT = 64 * _MB  # larger blocks are given back at once
MOST_KEPT = 256 * _MB  # at the end of the heap; what is free beyond it is given back


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next that are needed; for a process of our own, not a library.

    Returns whether the C library can (glibc can, see mallopt(3)); others stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, MOST_KEPT))
