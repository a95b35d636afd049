"""Write ten people's synthetic recordings as CSV, to try the pages and the notebook without data.

    python examples/make_recordings.py recordings

One file a person, ``p01.csv`` to ``p10.csv``: a time in seconds, an accelerometer in g, a gyroscope
in deg/s at 100 Hz, and the activity of each row. What a device at the waist would measure is made
up of its tilt, of steps and of noise; people differ in all three. Real recordings are harder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RATE_HZ = 100
COLUMNS = ("time_s", "ax", "ay", "az", "gx", "gy", "gz", "activity")
# Tilt in rad, steps a second, and their strength in g.
ACTIVITIES = {
    "sitting": (0.7, 1.0, 0.0),
    "standing": (0.1, 1.0, 0.0),
    "walking": (0.1, 1.8, 0.25),
    "running": (0.2, 2.7, 0.8),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files into the folder that the command line names."""
    args = build_parser().parse_args(argv)
    write_recordings(args.out, args.people, args.seconds)
    print(f"wrote  {args.people} recordings into {args.out}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="DIR", help="folder of the files")
    parser.add_argument("--people", type=int, default=10, metavar="N")
    parser.add_argument("--seconds", type=int, default=40, metavar="N", help="of each activity")
    return parser


def write_recordings(folder: Path, people: int = 10, seconds: int = 40) -> None:
    """Write ``people`` files of ``seconds`` of each activity; the same ones at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    for person in range(1, people + 1):
        rng = np.random.default_rng(person)
        sits, count = rng.normal(0.0, 0.15), seconds * RATE_HZ  # how the person wears it
        lines = [",".join(COLUMNS)]
        for number, (activity, (tilt, steps_hz, strength)) in enumerate(ACTIVITIES.items()):
            time_s = seconds * number + np.arange(count) / RATE_HZ
            paces = steps_hz * rng.normal(1.0, 0.07), strength * np.exp(rng.normal(0.0, 0.2))
            table = np.column_stack([time_s, _signal(time_s, tilt + sits, *paces, rng)])
            lines += [",".join([*(f"{v:.4f}" for v in row), activity]) for row in table.tolist()]
        (folder / f"p{person:02d}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _signal(
    time_s: np.ndarray, tilt: float, steps_hz: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Accelerometer in g and gyroscope in deg/s ``(n, 6)`` of a body that sways and steps."""
    phase = 2 * np.pi * steps_hz * time_s + rng.uniform(0, 2 * np.pi)
    sway = 2 * np.pi * 0.2 * time_s + rng.uniform(0, 2 * np.pi)
    angle = tilt + 0.05 * np.sin(sway) + 0.2 * strength * np.sin(phase / 2)
    turning = np.degrees(np.gradient(angle, time_s))
    steps = strength * np.sin(phase)
    acc = np.stack([np.sin(angle), 0.2 * np.roll(steps, 5), np.cos(angle) + steps], axis=1)
    gyr = np.stack([4 * steps, -turning, 3 * np.roll(steps, 9)], axis=1)
    noise = rng.standard_normal((len(time_s), 6)) * (0.01, 0.01, 0.01, 0.5, 0.5, 0.5)
    return np.concatenate([acc, gyr], axis=1) + noise


if __name__ == "__main__":
    raise SystemExit(main())
