"""Where the real device recordings lie that tests read; they are never copied into the project."""

import os
from pathlib import Path

from tests.conftest import require

ROOT = Path(__file__).parents[1]


def recording_path(name: str) -> Path:
    """The file ``name`` in ``PRIMUS_RECORDINGS`` (default: ``../shared/recordings``)."""
    folder = Path(os.environ.get("PRIMUS_RECORDINGS", ROOT.parent / "shared" / "recordings"))
    require(folder.is_dir(), f"no folder of real recordings at {folder}; set PRIMUS_RECORDINGS")
    return folder / name
