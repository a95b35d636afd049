"""Check before training that there is space for checkpoints.

Files of the size of a checkpoint are allocated in its folder and deleted at once. This finds a full
disk, a quota, and a limit of the size of a file.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from primus_scale.checkpoint.manifest import ENCODER, SUPPORT
from primus_scale.engine.zero_state import STATE

FLOAT32 = 4

log = logging.getLogger(__name__)


def expected_bytes(parameters: int, zero_stage: int, support: int) -> dict[str, int]:
    """Bytes of a checkpoint by folder.

    support: bytes of the full support set. The state holds weights and Adam's two moments in
    float32, from ZeRO stage 1 on a second copy of the weights (arXiv 1910.02054).
    """
    copies = 3 if zero_stage == 0 else 4
    return {
        ENCODER: FLOAT32 * parameters,
        STATE: copies * FLOAT32 * parameters,
        SUPPORT: support,
    }


def check_room(folder: Path, sizes: Mapping[str, int], copies: int, instead: str) -> None:
    """Allocate files of ``sizes`` in ``folder``, which is made, and delete them.

    copies: checkpoints that will be added to those in the folder; too little space for them is a
    warning. instead: what the user may choose instead, for the message. OSError where there is no
    space for one checkpoint.
    """
    needed = sum(sizes.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            for size in filter(None, sizes.values()):
                file = files.enter_context(tempfile.TemporaryFile(dir=folder))
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} cannot hold a checkpoint of {_amount(needed)} ({error.strerror or error}; "
            f"{_amount(_free(folder))} free); free some space there, or choose {instead}",
        ) from error
    if _free(folder) < copies * needed:
        log.warning(
            "%s has %s free, but the run adds %d checkpoints of %s to those in the folder; free "
            "some space, or lower train.keep_checkpoints",
            folder,
            _amount(_free(folder)),
            copies,
            _amount(needed),
        )


def _free(folder: Path) -> int:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _amount(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
