"""Writes a small source for every reader, in the layout that its data set documents.

SOURCES["pamap2"](folder)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.demo.hapt import PEOPLE
from shards.readers import realworld
from tests import ego4d_factory, egoexo4d_factory, folder_factory
from tests.recording_factory import sample_times
from tests.recordings import recording_path
from tests.unit import test_reader_hapt as hapt_files
from tests.unit import test_reader_hhar as hhar_files
from tests.unit import test_reader_matrix as matrix_files
from tests.unit import test_reader_motionsense as motionsense_files
from tests.unit import test_reader_ninapro as ninapro_files
from tests.unit import test_reader_ppg_dalia as ppg_files
from tests.unit import test_reader_realworld as realworld_files
from tests.unit import test_reader_uci_har as uci_har_files
from tests.unit import test_reader_wisdm as wisdm_files


def write_egoexo4d(root: Path) -> None:
    egoexo4d_factory.copy_vrs(root, "aria02_noimagestreams.vrs")
    egoexo4d_factory.write_takes(root)
    egoexo4d_factory.write_timesync(root)
    egoexo4d_factory.write_pictures(root)
    description = egoexo4d_factory.describe(0.1)
    egoexo4d_factory.write_descriptions(root, egoexo4d_factory.annotation(description))


def write_ego4d(root: Path) -> None:
    ego4d_factory.write_imu(root, sample_times(200, 1))
    ego4d_factory.write_metadata(root)
    spoken = [ego4d_factory.narration(1.0, "#C C nods")]
    ego4d_factory.write_narrations(
        root, {ego4d_factory.UID: {"narration_pass_1": {"narrations": spoken}}}
    )


def write_vrs(path: Path, time_code: bool = False) -> None:
    pytest.importorskip("projectaria_tools")
    from tests import vrs_factory

    time_ns = 42 * 10**9 + 1_250_000 * np.arange(50)
    pairs = [(42 * 10**9, 5000 * 10**9), (43 * 10**9, 5001 * 10**9)] if time_code else ()
    imus = {vrs_factory.IMU_LEFT: vrs_factory.make_imu(time_ns)}
    vrs_factory.write_vrs(path, imus, time_code=pairs)


def write_nymeria(root: Path) -> None:
    for unit in ("head", "lwrist", "rwrist"):
        folder = root / "20230607_s0_james_johnson_act1_e72nhq" / f"recording_{unit}" / "data"
        write_vrs(folder / "motion.vrs", time_code=True)


def write_gopro(root: Path) -> None:
    shutil.copy(recording_path("gopro_max_hero.mp4"), root)


def write_folder(root: Path) -> None:
    folder_factory.describe(root, folder_factory.description())
    columns = dict.fromkeys(folder_factory.ACC.values(), np.arange(5.0))
    folder_factory.write_csv(root / "wrist.csv", columns)


def write_matrix(data_set: matrix_files.Set) -> Callable[[Path], object]:
    return lambda root: matrix_files.write(root, data_set, matrix_files.rows_of(data_set, [1] * 9))


def write_realworld(root: Path) -> None:
    members = {
        f"acc_walking_{key}.csv": realworld_files.csv(realworld_files.table(9))
        for key in realworld.PLACEMENTS
    }
    realworld_files.write(root, "acc_walking_csv.zip", members)


def write_wisdm(root: Path) -> None:
    for device in ("phone", "watch"):
        wisdm_files.write(root, "A" * 9, device=device)


def write_uci_har(root: Path) -> None:
    """The 30 volunteers, some in either part."""
    for split, people in (("train", PEOPLE[9:]), ("test", PEOPLE[:9])):
        windows = np.concatenate([uci_har_files.cut(uci_har_files.signal_of(1)) for _ in people])
        uci_har_files.write(root, windows, list(people), [1] * len(people), split)


def write_hapt(root: Path) -> None:
    """The 30 volunteers, one experiment each."""
    for person in PEOPLE:
        for sensor in ("acc", "gyro"):
            hapt_files.write(root, person, person, samples=20, sensor=sensor)
    hapt_files.write_labels(root, *((person, person, 1, 1, 20) for person in PEOPLE))


def write_hhar(root: Path) -> None:
    for group, device in (("Phones", "nexus4_1"), ("Watch", "gear_1")):
        rows = hhar_files.Rows("a", device, "walk walk walk")
        hhar_files.write(root, f"{group}_accelerometer.csv", rows.lines())


SOURCES: dict[str, Callable[[Path], Any]] = {
    "egoexo4d": write_egoexo4d,
    "ego4d": write_ego4d,
    "aria": lambda root: write_vrs(root / "walk.vrs"),
    "nymeria": write_nymeria,
    "gopro": write_gopro,
    "folder": write_folder,
    "pamap2": write_matrix(matrix_files.PAMAP2),
    "mhealth": write_matrix(matrix_files.MHEALTH),
    "realworld": write_realworld,
    "wisdm": write_wisdm,
    "uci_har": write_uci_har,
    "hapt": write_hapt,
    "hhar": write_hhar,
    "motionsense": motionsense_files.write,
    "opportunity": write_matrix(matrix_files.OPPORTUNITY),
    "ninapro": lambda root: ninapro_files.write(root / "S3_E2_A1.mat"),
    "ppg_dalia": lambda root: ppg_files.write(root / "S1.pkl", ppg_files.dalia()),
}
