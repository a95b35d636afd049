"""How many windows come of every reader's files, in the layout that its data set documents.

The counts are those that commit 375422a made of the same files, before sensors and devices had
gates: no window may be lost to these, and sound files are not flagged.
"""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from primus_scale.cli import main
from primus_scale.data.index import read_index
from shards.card.gates import describe_gates
from shards.readers import READERS
from shards.report import GAP, INVALID, NO_NARRATION, NO_SENSOR
from tests.moving_sources import MOVING


class Counts(NamedTuple):
    """windows: by device, over all recordings, those without left out. refused: by reason."""

    windows: dict[str, int]
    refused: dict[str, int]


UNITS = ("head-imu-left", "head-imu-right", "lwrist-imu-left", "lwrist-imu-right")
COUNTS = {
    "egoexo4d": Counts({"imu-left": 2, "imu-right": 2}, {}),
    # One window lies where ten rows are lost, another where nobody says anything.
    "ego4d": Counts({"GoPro Hero 7": 2}, {GAP: 1, NO_NARRATION: 1}),
    "aria": Counts({"imu-left": 1, "imu-right": 1}, {}),
    "nymeria": Counts(dict.fromkeys((*UNITS, "rwrist-imu-left", "rwrist-imu-right"), 1), {}),
    "gopro": Counts({"GoPro HERO6 Black": 4}, {}),
    "folder": Counts({"watch": 2}, {}),
    # 12 s and 10 s of activities are two windows of 5 s each; one of the hand's has lost rows.
    "pamap2": Counts({"hand": 3, "chest": 4, "ankle": 4}, {INVALID: 1}),
    "mhealth": Counts({"ankle-left": 4, "wrist-right": 4}, {NO_SENSOR: 4}),
    "realworld": Counts({"chest": 3, "thigh": 3}, {}),
    "wisdm": Counts({"phone": 4, "watch": 4}, {}),
    "uci_har": Counts({"phone": 3}, {}),
    "hapt": Counts({"smartphone": 3}, {}),
    "hhar": Counts({"nexus4_1": 2, "gear_1": 2}, {}),
    "motionsense": Counts({"phone": 3}, {}),
    # Twelve accelerometers have no gyroscope; a second of one unit's records is lost.
    "opportunity": Counts(
        {
            **{"back": 4, "upper-arm-right": 4, "forearm-right": 3},
            **{"upper-arm-left": 4, "forearm-left": 4},
        },
        {NO_SENSOR: 48, INVALID: 1},
    ),
    "ninapro": Counts({"forearm": 12}, {}),  # of 1 s
    "ppg_dalia": Counts({"wrist": 3}, {}),  # of 8 s
}


@pytest.mark.parametrize("name", READERS)
def test_all_windows_of_documented_files_are_made(name: str, tmp_path: Path) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    source.mkdir()
    MOVING[name](source)
    command = ["shards", "build", name, "--src", str(source), "--out", str(out)]
    assert main([*command, "--workers", "1", "--frames", "0"]) == 0
    report = json.loads((out / "ingest.json").read_text())
    windows: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for recording in report["recordings"]:
        assert recording["error"] is None
        assert recording["left_out"] == []
        for device in recording["devices"]:
            windows[device["name"]] += device["windows"]
            refused.update(device["refused"])
    assert Counts(dict(+windows), dict(refused)) == COUNTS[name]
    assert describe_gates([report])["findings"] == []
    assert report["unread"] == []
    assert read_index(str(out)).windows == sum(COUNTS[name].windows.values())
