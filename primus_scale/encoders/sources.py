"""Where an exported encoder lies: in a folder, below a run's folder, in this package, on the Hub.

find_export("runs/demo")                    # runs/demo/encoder
find_export("demo")                         # the packaged encoder of that name
find_export("hf://owner/name@revision")     # in the cache of huggingface_hub
"""

from __future__ import annotations

import warnings
from pathlib import Path

from primus_scale.encoders.card import CARD_FILE
from primus_scale.encoders.export import ENCODER_FOLDER
from primus_scale.encoders.hub import fetch_export
from primus_scale.storage.urls import HUB_SCHEME, parse_local

PACKAGED = ("demo",)  # names of the encoders in this package
PACKAGED_FOLDER = Path(__file__).parent / "packaged"


def find_export(source: str | Path) -> Path:
    """The folder of the exported encoder that ``source`` names.

    source: a folder of an export; a run's folder, for the export below it; or, as a text, the name
    of a packaged encoder or a place on the Hub (``hub.fetch_export``). A name means the packaged
    encoder in every working folder, so that a program does not change with the place where it is
    started. A folder of that name is given as ``./demo`` or as a ``Path``; where one holds an
    encoder, a warning says which is loaded.

    ValueError where it is another URL or none of these; errors of the Hub as ``fetch_export``.
    """
    if isinstance(source, str) and source in PACKAGED:
        return _packaged(source)
    if isinstance(source, str) and source.startswith(HUB_SCHEME):
        return fetch_export(source)
    return _of_folder(parse_local(source))


def is_folder(source: str | Path) -> bool:
    """Whether ``source`` is a folder of the user, beside which results can be written."""
    named = isinstance(source, str) and (source in PACKAGED or source.startswith(HUB_SCHEME))
    return not named


def how_to_repair(source: str | Path) -> str:
    """What to do where the files of ``source`` are damaged."""
    if is_folder(source):
        return "copy or export the encoder again"
    if source in PACKAGED:
        return "install primus-scale again"
    return "delete its folder so that it is read again; if that does not help, tell its owner"


def _packaged(name: str) -> Path:
    if (_of_folder(Path(name)) / CARD_FILE).exists():
        warnings.warn(
            f"{name!r} is the packaged encoder, not the one in the folder {name} here; write "
            f"./{name} for the folder",
            stacklevel=3,
        )
    return PACKAGED_FOLDER / name


def _of_folder(folder: Path) -> Path:
    below = folder / ENCODER_FOLDER
    if not (folder / CARD_FILE).exists() and (below / CARD_FILE).exists():
        return below
    return folder
