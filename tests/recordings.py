"""The real recordings that tests read: of devices, never copied into the project, and of HAPT."""

import os
from pathlib import Path

from shards.demo.hapt import HaptRecording, load_hapt
from tests.conftest import require

ROOT = Path(__file__).parents[1]


def recording_path(name: str) -> Path:
    """The file ``name`` in ``PRIMUS_RECORDINGS`` (default: ``../shared/recordings``)."""
    folder = Path(os.environ.get("PRIMUS_RECORDINGS", ROOT.parent / "shared" / "recordings"))
    require(folder.is_dir(), f"no folder of real recordings at {folder}; set PRIMUS_RECORDINGS")
    return folder / name


def hapt_recordings() -> list[HaptRecording]:
    """The recordings of HAPT in the installed package; the test is skipped without it."""
    try:
        return load_hapt()
    except FileNotFoundError as error:
        require(False, str(error))
        raise
