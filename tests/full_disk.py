"""A disk that is full, for tests that run as any user."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

Full = Callable[[int], AbstractContextManager[None]]


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Writes beyond ``size`` bytes a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Full]:
    """A disk of ``size`` bytes at ``folder``; yields what leaves so many bytes free for a block.

    Only root may mount one. For others ``folder`` is as it is, and in the block writes beyond so
    many bytes a file fail.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield files_limited_to
        return

    @contextmanager
    def filled_but_for(left: int) -> Iterator[None]:
        filler = folder / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(folder).free - left))
        yield
        filler.unlink()

    try:
        yield filled_but_for
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
