"""Writes a source for every reader, in its documented layout, of a device that swings.

MOVING["pamap2"](folder)

The values are what a sensor reads that turns about all axes, in the data set's units, with the
traps that its documentation names; so every window is sound whose time and sensors are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from primus_scale.signal.units import UNIT_FACTORS
from tests import ego4d_factory, egoexo4d_factory, folder_factory, gopro_factory
from tests.unit import test_reader_hapt as hapt_files
from tests.unit import test_reader_hhar as hhar_files
from tests.unit import test_reader_matrix as matrix_files
from tests.unit import test_reader_motionsense as motionsense_files
from tests.unit import test_reader_ninapro as ninapro_files
from tests.unit import test_reader_ppg_dalia as ppg_files
from tests.unit import test_reader_realworld as realworld_files
from tests.unit import test_reader_uci_har as uci_har_files
from tests.unit import test_reader_wisdm as wisdm_files

G = 9.80665
DEG = UNIT_FACTORS["deg/s"][1]


def swing(time_s: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Acceleration (m/s2) and rotation (rad/s) ``(n, 3)`` of a device that turns about all axes.

    By roll, pitch and yaw as sines of time; with a walker's sway, and noise.
    """
    amplitude, pulse = np.array([0.8, 0.6, 0.7]), np.array([1.9, 1.3, 1.6])
    angles = pulse * time_s[:, None] + [0.0, 0.5 + seed, 1.0]
    roll, pitch, _ = (amplitude * np.sin(angles)).T
    roll_rate, pitch_rate, yaw_rate = (amplitude * pulse * np.cos(angles)).T
    up = np.stack([-np.sin(pitch), np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch)])
    turn = np.stack(
        [
            roll_rate - yaw_rate * np.sin(pitch),
            pitch_rate * np.cos(roll) + yaw_rate * np.sin(roll) * np.cos(pitch),
            yaw_rate * np.cos(roll) * np.cos(pitch) - pitch_rate * np.sin(roll),
        ]
    )
    sway = 0.3 * np.sin(2 * np.pi * np.array([1.8, 2.0, 2.2]) * time_s[:, None])
    noise = np.random.default_rng(seed).normal(0, 0.01, (2, len(time_s), 3))
    return G * up.T + sway + noise[0], turn.T + noise[1]


def write_pamap2(root: Path) -> None:
    """2 s between activities, 12 s of walking with 0.3 s lost by the hand's radio, 10 s cycling."""
    rows = np.zeros((2400, 54))
    rows[:, 0] = 8.38 + np.arange(2400) / 100
    rows[:, 1] = np.repeat([0, 4, 6], [200, 1200, 1000])
    for seed, first in enumerate((3, 20, 37)):
        acc, gyr = swing(rows[:, 0], seed)
        rows[:, first] = 33.5
        rows[:, first + 1 : first + 4] = rows[:, first + 4 : first + 7] = acc
        rows[:, first + 7 : first + 10] = gyr
    rows[900:930, 3:20] = np.nan
    matrix_files.write(root, matrix_files.PAMAP2, rows)


def write_mhealth(root: Path) -> None:
    """2 s of no activity, 12 s of walking, 10 s of running; the chest has no gyroscope."""
    rows = np.zeros((1200, 24))
    time_s = np.arange(1200) / 50
    rows[:, 23] = np.repeat([0, 4, 11], [100, 600, 500])
    rows[:, 0:3] = swing(time_s)[0]
    for seed, first in ((1, 5), (2, 14)):
        acc, gyr = swing(time_s, seed)
        rows[:, first : first + 3], rows[:, first + 3 : first + 6] = acc, gyr / DEG
    matrix_files.write(root, matrix_files.MHEALTH, rows)


def write_opportunity(root: Path) -> None:
    """12 s of walking and 12 s of standing; one unit's radio fails for a second."""
    rows = np.zeros((720, 250))
    rows[:, 0] = np.rint(np.arange(720) * 1000 / 30)
    rows[:, 243] = np.repeat([2, 1], 360)
    for seed, first in enumerate((*range(37, 102, 13), *range(1, 37, 3))):
        acc, gyr = swing(rows[:, 0] / 1000, seed)
        rows[:, first : first + 3] = np.rint(acc / G * 1000)
        if first >= 37:
            rows[:, first + 3 : first + 6] = np.rint(gyr * 1000)
    rows[100:130, 63:76] = np.nan
    matrix_files.write(root, matrix_files.OPPORTUNITY, rows)


def write_realworld(root: Path) -> None:
    """12 s of walking at two placements, the chest's rows in no order; 6 s in a second part."""
    order = np.random.default_rng(0).permutation(600)
    for kind, number in (("acc", 0), ("gyr", 1)):
        members = {}
        for seed, placement in enumerate(("chest", "thigh")):
            for part, (start_s, rows) in {"": (0.0, 600), "_2": (20.0, 300)}.items():
                table = realworld_files.table(rows, start_s)
                table[:, 1:] = np.round(swing(table[:, 0] / 1e3 - 1.435e9, seed)[number], 6)
                name = f"{realworld_files.NAMES[kind]}_walking{part}_{placement}.csv"
                mixed = order if (placement, part) == ("chest", "") else np.arange(rows)
                members[name] = realworld_files.csv(table[mixed])
        realworld_files.write(root, f"{kind}_walking_csv.zip", members)


def write_wisdm(root: Path) -> None:
    """12 s of walking, then 12 s of folding laundry, of phone and watch at 20 Hz."""
    time_s = np.arange(480) * wisdm_files.SPACING_NS / 1e9
    for seed, device in enumerate(("phone", "watch")):
        for sensor, values in zip(("accel", "gyro"), swing(time_s, seed), strict=True):
            activities = "A" * 240 + "S" * 240
            wisdm_files.write(root, activities, device=device, sensor=sensor, values=values)


def write_uci_har(root: Path) -> None:
    """Two people of a part, 11.5 s each, sitting in the last two windows of ten."""
    windows = []
    for seed in range(2):
        acc, gyr = swing(np.arange(64 * 9) / 50, seed)
        windows.append(uci_har_files.cut(np.concatenate([acc / G, gyr], axis=1)))
    uci_har_files.write(
        root, np.concatenate(windows), [1] * 8 + [3] * 8, [1] * 8 + [1] * 6 + [4] * 2
    )


def write_hapt(root: Path) -> None:
    """12 s of walking, 1 s of sitting down, 8 s of sitting; 2 s of standing up in another file."""
    for experiment in (1, 2):
        acc, gyr = swing(np.arange(1200) / 50, experiment)
        hapt_files.write(root, experiment, 1, values=acc / G)
        hapt_files.write(root, experiment, 1, sensor="gyro", values=gyr)
    hapt_files.write_labels(
        root, (1, 1, 1, 51, 650), (1, 1, 8, 651, 700), (1, 1, 4, 701, 1100), (2, 1, 7, 1, 100)
    )


def write_hhar(root: Path) -> None:
    """2 s of nothing and 12 s of walking, of a phone at 200 Hz and a watch at 100 Hz.

    The watch's clock counts from its start, the phone's from 1970.
    """
    folder = root / "Activity recognition exp"
    for group, device, rate_hz, start_ns in (
        ("Phones", "nexus4_1", 200, hhar_files.UNIX_NS),
        ("Watch", "gear_1", 100, 27_920_678_471_000),
    ):
        labels = hhar_files.runs(("null", 2 * rate_hz), ("walk", 12 * rate_hz))
        both = swing(np.arange(14 * rate_hz) / rate_hz)
        for sensor, values in zip(("accelerometer", "gyroscope"), both, strict=True):
            rows = hhar_files.Rows("a", device, labels, start_ns, rate_hz)
            rows.xyz = np.round(values, 6)
            hhar_files.write(folder, f"{group}_{sensor}.csv", rows.lines())


def write_motionsense(root: Path) -> None:
    """12 s of walking and 7 s of sitting; acceleration points down at rest, as on iOS."""
    for trial, rows in (("wlk_7", 600), ("sit_5", 350)):
        acc, gyr = swing(np.arange(rows) / 50)
        values = np.zeros((rows, 12))
        values[:, 3:6], values[:, 6:9], values[:, 9:12] = -0.98 * acc / G, gyr, -0.02 * acc / G
        motionsense_files.write(root, trial, values=values)


def write_ninapro(root: Path) -> None:
    """Three movements of 4 s with 2 s of rest about them, 16 electrodes at 200 Hz."""
    moves = np.repeat([0, 1, 0, 2, 0, 12, 0], [400, 800, 400, 800, 400, 800, 400])
    emg = np.rint(np.random.default_rng(0).normal(0, 20, (len(moves), 16)))
    changes = {"restimulus": moves[:, None], "emg": emg, "stimulus": None, "glove": None}
    ninapro_files.write(root / "s3" / "S3_E2_A1.mat", rerepetition=None, **changes)


def write_ppg_dalia(root: Path) -> None:
    """40 s of the wrist, of which 10 s are sitting, 15 s walking and 10 s working."""
    content = ppg_files.dalia()
    seconds = ppg_files.SECONDS
    content["signal"]["chest"] = {}
    wrist = content["signal"]["wrist"]
    wrist["ACC"] = np.round(swing(np.arange(seconds * 32) / 32)[0] / G * 64)
    ppg_files.write(root / "PPG_FieldStudy" / "S1" / "S1.pkl", content)


def write_ego4d(root: Path) -> None:
    """24 s at 200 Hz, rows out of order and some twice, with narrations in four places."""
    time_s = np.arange(4800) / 200
    order = np.arange(4800)
    order[200:400], order[4000:4010] = np.arange(200, 400)[::-1], np.arange(3990, 4000)
    values = np.concatenate(swing(time_s)[::-1], axis=1)
    ego4d_factory.write_imu(root, time_s[order], values=values[order])
    ego4d_factory.write_metadata(root, ego4d_factory.video_entry(duration_sec=24.0))
    said = [(3.0, "#C C nods"), (10.0, "#C C sits"), (11.0, "#C C eats"), (23.5, "#C C rises")]
    spoken = [ego4d_factory.narration(*one) for one in said]
    told = {ego4d_factory.UID: {"narration_pass_1": {"narrations": spoken}}}
    ego4d_factory.write_narrations(root, told)


def write_vrs(path: Path, start_s: float, seconds: float, code_s: float | None = None) -> None:
    """Two IMUs of 800 and 1,000 Hz from ``start_s`` on, which the time code calls ``code_s``."""
    from tests import vrs_factory

    imus = {}
    for stream, step_ns in ((vrs_factory.IMU_LEFT, 1_250_000), (vrs_factory.IMU_RIGHT, 1_000_000)):
        time_ns = round(start_s * 1e9) + np.arange(0, round(seconds * 1e9), step_ns)
        acc, gyr = (values.astype(np.float32) for values in swing(time_ns / 1e9))
        valid = np.ones(len(time_ns), bool)
        imus[stream] = vrs_factory.Imu(time_ns, acc, gyr, valid, valid)
    pairs = [] if code_s is None else [(start_s + k, code_s + k) for k in range(3)]
    time_code = [(round(one * 1e9), round(other * 1e9)) for one, other in pairs]
    vrs_factory.write_vrs(path, imus, time_code=time_code)


def write_egoexo4d(root: Path) -> None:
    """A take of 9 s with descriptions at 2 s, 3 s and 7 s, without pictures."""
    factory = egoexo4d_factory
    write_vrs(root / "takes" / factory.TAKE / "aria02_noimagestreams.vrs", 86.0, 9.5)
    rows = 270
    take = factory.take_entry(duration_sec=9.0, timesync_end_idx=factory.START + 1 + rows)
    factory.write_takes(root, take)
    factory.write_timesync(root, [86_300_000_000 + 33_333_333 * n for n in range(rows)])
    said = (factory.describe(time_s, text) for time_s, text in ((2.0, "C nods"), (7.0, "C sits")))
    factory.write_descriptions(root, factory.annotation(*said, factory.describe(3.0, "C stands")))


def write_nymeria(root: Path) -> None:
    """Head and wrists, 8 s on clocks that time code ties, with a narration of 2 s."""
    folder = root / "20230607_s0_james_johnson_act1_e72nhq"
    for unit, start_s in (("head", 86), ("lwrist", 3), ("rwrist", 700)):
        write_vrs(folder / f"recording_{unit}" / "data" / "motion.vrs", start_s, 8, 5000)
    (folder / "narration").mkdir()
    (folder / "narration" / "atomic_action.csv").write_text(
        "start_time,end_time,Describe my atomic actions\n89,91,C opens the drawer\n"
    )


def write_gopro(root: Path) -> None:
    """20 s at 200 Hz in even blocks of telemetry."""
    time_s = {key: np.arange(4000) / 200 for key in gopro_factory.SIGNALS}
    gopro_factory.write_gopro(root / "GX010001.MP4", time_s, gopro_factory.even_blocks([200] * 20))


def write_folder(root: Path) -> None:
    """12 s at 50 Hz in one table, described."""
    time_s = np.arange(600) / 50
    values = np.concatenate(swing(time_s), axis=1)
    keys = folder_factory.described(time={"column": "t", "unit": "s"})
    folder_factory.describe(root / "anna", keys)
    table = folder_factory.text_table([f"{t:.2f}" for t in time_s], values)
    (root / "anna" / "w.csv").write_text(table)


MOVING: dict[str, Callable[[Path], Any]] = {
    "egoexo4d": write_egoexo4d,
    "ego4d": write_ego4d,
    "aria": lambda root: write_vrs(root / "walk.vrs", 42.0, 10.5),
    "nymeria": write_nymeria,
    "gopro": write_gopro,
    "folder": write_folder,
    "pamap2": write_pamap2,
    "mhealth": write_mhealth,
    "realworld": write_realworld,
    "wisdm": write_wisdm,
    "uci_har": write_uci_har,
    "hapt": write_hapt,
    "hhar": write_hhar,
    "motionsense": write_motionsense,
    "opportunity": write_opportunity,
    "ninapro": write_ninapro,
    "ppg_dalia": write_ppg_dalia,
}
