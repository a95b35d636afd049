"""Write a real EMG recording in the layout of docs/folder.md, to fine-tune an encoder of IMU on it.

    pip install --no-deps openhdemg==0.1.2     # GPL-3.0; only its test file is read
    python examples/emg.py data/emg

The file has one person's vastus lateralis under 64 electrodes at 2048 Hz, while the force rises to
about 26 % of the strongest contraction, is held, and falls again; a load cell measured it. What is
written are 9 s of the rise and 9 s of the fall, in uV, each row with its level of force. 14 s of
the plateau between them are left out. Every second is a recording; those of a side are dealt to
three parts, which stand for people: ``rise-1`` to ``rise-3``, ``fall-1`` to ``fall-3``.

``features`` are the usual hand-crafted features of EMG, for ``few_shot.own``. docs/arms.md has the
commands that follow, and docs/results.md what came of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.io
import yaml

RATE_HZ = 2048
WINDOW_SAMPLES = 256
ELECTRODES = range(0, 64, 4)  # of the grid; neighbours see almost the same
SIDE_S, PARTS = 9, 3
LEVELS = {"low": (0.0, 10.0), "middle": (10.0, 20.0), "high": (20.0, 100.0)}  # % of the strongest
IN_PACKAGE = "library/decomposed_test_files/otb_testfile.mat"
ADVICE = "pip install --no-deps openhdemg==0.1.2, or give its otb_testfile.mat with --file"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder that the command line names."""
    args = build_parser().parse_args(argv)
    emg_uv, force = read_recording(args.file or file_of_package())
    count = write_recordings(args.out, emg_uv, force)
    print(f"wrote  {count} recordings of 1 s, {len(ELECTRODES)} electrodes, into {args.out}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--file", type=Path, help="otb_testfile.mat (default: that of the installed openhdemg)"
    )
    return parser


def file_of_package() -> Path:
    """The test file of the installed openhdemg, which is not imported."""
    found = find_spec("openhdemg")
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"openhdemg is not installed; {ADVICE}")
    return Path(found.submodule_search_locations[0]) / IN_PACKAGE


def read_recording(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """EMG ``(n, electrodes)`` in uV, and force ``(n,)`` in % of the strongest contraction."""
    if not file.is_file():
        raise SystemExit(f"{file} is missing; {ADVICE}")
    content = scipy.io.loadmat(file, variable_names=["Data", "Description", "SamplingFrequency"])
    names = [str(name) for name in np.concatenate([*content["Description"].ravel()])]
    electrodes = [number for number, name in enumerate(names) if name.endswith("[uV]")]
    rate_hz = int(content["SamplingFrequency"].item())
    if len(electrodes) != 64 or not names[-1].endswith("(MVC)]") or rate_hz != RATE_HZ:
        raise SystemExit(
            f"{file} has {len(electrodes)} channels in uV at {rate_hz} Hz, and its last one is "
            f"{names[-1]}; 64 at {RATE_HZ} Hz and a force were expected. {ADVICE}"
        )
    data = content["Data"].item().astype(np.float64)
    return data[:, electrodes][:, ELECTRODES], data[:, -1]


def write_recordings(folder: Path, emg_uv: np.ndarray, force: np.ndarray) -> int:
    """Write each second of both sides as a recording with its description; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = [f"emg_{number + 1}" for number in ELECTRODES]
    for side, start in (("rise", 0), ("fall", len(force) - SIDE_S * RATE_HZ)):
        for second in range(SIDE_S):
            rows = slice(start + second * RATE_HZ, start + (second + 1) * RATE_HZ)
            place = folder / f"{side}-{1 + second % PARTS}" / f"{second}"
            place.mkdir(parents=True, exist_ok=True)
            lines = [",".join([*channels, "force_level"])]
            for sample, level in zip(emg_uv[rows], levels_of(force[rows]), strict=True):
                lines.append(",".join([*(f"{value:.3f}" for value in sample), level]))
            (place / "emg.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_descriptions(folder, channels)
    return 2 * SIDE_S


def levels_of(force: np.ndarray) -> list[str]:
    """The level of force of each row, one for a window: that of its mean."""
    means = force.reshape(-1, WINDOW_SAMPLES).mean(axis=1)
    named = [
        next(name for name, (low, high) in LEVELS.items() if low <= mean < high) for mean in means
    ]
    return [*np.repeat(named, WINDOW_SAMPLES)]


def write_descriptions(folder: Path, channels: Sequence[str]) -> None:
    """``recording.yaml`` and ``windows.yaml``, which ``shards build folder`` reads."""
    file = {"file": "emg.csv", "rate_hz": RATE_HZ}
    sensor = file | {"columns": {name: name for name in channels}, "unit": "uV"}
    device = {"name": "grid", "placement": "vastus lateralis", "sensors": [sensor]}
    described = {
        "dataset": "openhdemg",
        "recordings": "{person}/*",
        "devices": [device],
        "labels": file | {"column": "force_level"},
    }
    windows = {
        "channels": dict.fromkeys(channels, "V"),
        "rate_hz": RATE_HZ,
        "window_s": WINDOW_SAMPLES / RATE_HZ,
    }
    for name, content in (("recording", described), ("windows", windows)):
        text = yaml.safe_dump(content, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def features(imu: np.ndarray, rate_hz: float) -> np.ndarray:
    """Features ``(N, 4 C)`` of windows ``(N, C, T)``: those of Hudgins et al. 1993.

    Of each electrode the logarithms of mean absolute value and of waveform length, the rate of zero
    crossings and that of turns, per second.
    """
    centred = imu.astype(np.float64) - imu.mean(axis=2, keepdims=True)
    steps = np.diff(centred, axis=2)
    seconds = imu.shape[2] / rate_hz
    strength = [np.abs(centred).mean(axis=2), np.abs(steps).mean(axis=2)]
    changes = [(np.diff(np.signbit(one), axis=2) != 0).sum(axis=2) for one in (centred, steps)]
    found = [*(np.log(one + 1e-12) for one in strength), *(one / seconds for one in changes)]
    return np.concatenate(found, axis=1)


if __name__ == "__main__":
    raise SystemExit(main())
