"""Runs a Python program in a network namespace, as ``ip netns exec NAME python PROGRAM`` does.

    in_netns.py NAME PROGRAM ARGUMENT...

It imports little: the fork server starts it. Python 3.11 has no ``os.setns``.
"""

import ctypes
import runpy
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000  # linux/sched.h


def enter(name: str) -> None:
    """Put this process, which has one thread, into the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")


if __name__ == "__main__":
    _, name, program, *arguments = sys.argv
    enter(name)
    sys.argv, sys.path[0] = [program, *arguments], str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")
