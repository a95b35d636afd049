"""The settings of a run that a command names, or why what it names is no run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from primus_scale.config import Config
from primus_scale.config_file import load_config
from primus_scale.encoders.export import ENCODER_FOLDER
from primus_scale.encoders.sources import find_export, is_folder
from primus_scale.storage.urls import parse_local

SETTINGS_FILE = "config.yaml"  # of a run


def read_run(source: str, instead: str, overrides: Iterable[str] = ()) -> tuple[Path, Config]:
    """The folder of the run that ``source`` names, and its settings.

    instead: what to give for an encoder that is no run, for the message. Raises ValueError where
    ``source`` is the name of an encoder or a URL, FileNotFoundError where it is no run's folder,
    and as ``load_config``.
    """
    if not is_folder(source):
        raise ValueError(
            f"--run takes the output folder of a training run, and {source} names an exported "
            f"encoder, which has no run here; {instead}"
        )
    folder = parse_local(source)
    if not (folder / SETTINGS_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} is no output folder of a training run: it has no {SETTINGS_FILE}; give the "
            f"folder that the run's `output` names; if it holds an encoder alone, {instead}"
        )
    return folder, load_config(folder / SETTINGS_FILE, overrides)


def training_data_of(source: str) -> list[str]:
    """The training data of the run whose encoder ``source`` names; none where no run lies there."""
    if not is_folder(source):
        return []
    named, export = parse_local(source), find_export(source)
    runs = [named, *([export.parent] if export.name == ENCODER_FOLDER else [])]
    found = [folder / SETTINGS_FILE for folder in runs if (folder / SETTINGS_FILE).is_file()]
    return list(load_config(found[0]).data.train) if found else []
