"""Read-only folders, for tests that may well run as root."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CAP_DAC_OVERRIDE = 1 << 1  # root's right to write anywhere: capabilities(7)
VERSION_3 = 0x20080522


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Let the permissions of files bind this thread, root's too, as they bind other users."""
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high ones
    _call("capget", header, sets)
    effective = sets[0]
    sets[0] = effective & ~CAP_DAC_OVERRIDE
    _call("capset", header, sets)
    try:
        yield
    finally:
        sets[0] = effective
        _call("capset", header, sets)


def _call(function: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")
