"""Readers of raw recordings, found by name; a module here holds one, called ``READER``.

reader = create_reader("gopro", "s3://bucket/rides")
for ref in reader.recordings():
with reader.open(ref) as recording: ...
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import get_type_hints

from primus_scale.storage.names import nearest, quoted
from primus_scale.storage.yaml_text import read_yaml
from shards.files.source import Source
from shards.readers.base import Reader

# What each reads, for the command's help. Modules are imported when asked for: some need packages
# of the `ingest` extra.
READERS: dict[str, str] = {
    "egoexo4d": "Ego-Exo4D takes: Aria VRS, aligned video, atomic descriptions",
    "ego4d": "Ego4D videos with IMU files and narrations",
    "aria": "Project Aria recordings (VRS), Gen 1 and Gen 2",
    "nymeria": "Nymeria sequences: head and both wrists, narrations",
    "gopro": "MP4 of GoPro, Sony and Insta360 cameras with a telemetry track",
    "folder": "your own files, described by a recording.yaml",
    "pamap2": "PAMAP2: hand, chest and ankle, 9 people",
    "mhealth": "MHEALTH: ankle and lower arm, 10 people",
    "realworld": "RealWorld HAR: 7 placements, 15 people",
    "wisdm": "WISDM 2019: phone and watch, 51 people",
    "uci_har": "UCI HAR: fixed windows at the waist, 30 people",
    "hapt": "UCI HAPT raw data: waist, with transitions, 30 people",
    "hhar": "HHAR: phones and watches, 9 people",
    "motionsense": "MotionSense: phone in the pocket, 24 people",
    "opportunity": "Opportunity: body-worn units, 4 people",
    "ninapro": "NinaPro EMG (.mat)",
    "ppg_dalia": "PPG-DaLiA and WESAD: wrist pulse and acceleration (.pkl)",
}


def create_reader(name: str, url: str, options: Mapping[str, str] | None = None) -> Reader:
    """The reader called ``name`` over the source at ``url``, its options given as text.

    ValueError for an unknown name or option, naming the nearest known one, and for a value of the
    wrong type; ModuleNotFoundError with the next step where a package of the extra is missing.
    """
    if name not in READERS:
        raise ValueError(f"no reader is called {name}{nearest(name, READERS)}")
    try:
        module = importlib.import_module(f"shards.readers.{name}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reader {name} needs the package {error.name}; install it with "
            "`pip install 'primus-scale[ingest]'` and "
            "`pip install --no-deps -r requirements-ingest.txt`",
            name=error.name,
        ) from None
    kind: type[Reader] = module.READER
    source = Source(url)
    source.check()
    return kind(source, **_typed(kind, options or {}))


def _typed(kind: type[Reader], options: Mapping[str, str]) -> dict[str, object]:
    known = [p for p in inspect.signature(kind).parameters if p != "source"]
    hints = get_type_hints(kind.__init__)
    typed: dict[str, object] = {}
    for key, text in options.items():
        if key not in known:
            raise ValueError(f"reader {kind.name} has no option {key}{nearest(key, known)}")
        try:
            value = text if hints[key] is str else read_yaml(text)
        except ValueError as error:
            raise ValueError(
                f"option {quoted(f'{key}={text}')} has no YAML value ({error})"
            ) from None
        if not isinstance(value, hints[key]):
            raise ValueError(f"option {key}={text}: expected a value of type {hints[key].__name__}")
        typed[key] = value
    return typed


def reader_option(text: str) -> tuple[str, str]:
    """Name and value of a reader's option, written as ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option {text}: write it as KEY=VALUE")
    return key, value
