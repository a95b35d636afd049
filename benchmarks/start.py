"""How long the program takes to begin: its help, small data, the first step of a run.

    python -m benchmarks.start --rounds 3 --json FILE

The commands take turns. ``--skip`` leaves some out.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.commands import COMMAND, Taken, run_timed
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import RATE_HZ, write_random_shards
from primus_scale.command_parser import Parser
from primus_scale.monitor.log import LOG_FOLDER

NAMES = ("help", "import", "build", "pretrain", "ray")
RUNS = ("pretrain", "ray")  # those with a first step
DESCRIPTION = f"""
dataset: random
person: somebody
recordings: "*"
devices:
  - name: watch
    placement: wrist
    rate_hz: {RATE_HZ:g}
    sensors:
      - {{file: imu.npy, unit: m/s2, columns: {{acc_x: 1, acc_y: 2, acc_z: 3}},
         time: {{column: 0, unit: s}}}}
      - {{file: imu.npy, unit: rad/s, columns: {{gyr_x: 4, gyr_y: 5, gyr_z: 6}},
         time: {{column: 0, unit: s}}}}
"""
RUN = """
name: start
output: {output}
data: {{train: [{data}]}}
encoder: {{name: conv_stats, size: XS}}
train: {{batch: 64, steps: 1, threads: 1}}
calibration: {{kind: none}}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.start",
        description="Seconds of whole commands: help; import primus_scale and load_encoder; build "
        "shards of one recording of a minute; a run of one step by pretrain, and by Ray with one "
        "worker, to the end of that step and to the end of the command. CPU seconds do not have "
        "those of Ray's processes.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of all commands")
    parser.add_argument(
        "--skip", nargs="*", choices=NAMES, default=[], help="commands to leave out"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure(args: argparse.Namespace) -> int:
    names = [name for name in NAMES if name not in args.skip]
    taken: dict[str, list[Taken]] = {name: [] for name in names}
    first_step_s: dict[str, list[float]] = {name: [] for name in names if name in RUNS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_recording(folder / "recording")
        write_random_shards(str(folder / "packed"), blocks=1)
        for number in range(args.rounds):
            for name in names:
                out, began = folder / f"{name}{number}", time.time()
                taken[name].append(run_timed(_command(name, folder, out)))
                if name in RUNS:
                    first_step_s[name].append(_time_of_first_step(out) - began)
    print(f"{'command':>10} {'to step 1, s':>13} {'seconds':>9} {'CPU seconds':>12}   medians")
    for name, rows in taken.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*rows, strict=True))
        to_step = f"{statistics.median(first_step_s[name]):.2f}" if name in RUNS else "-"
        print(f"{name:>10} {to_step:>13} {wall_s:>9.2f} {cpu_s:>12.2f}")
    rounds = {name: [row._asdict() for row in rows] for name, rows in taken.items()}
    write_figures(args.json, 1, {"taken": rounds, "first_step_s": first_step_s})
    return 0


def _time_of_first_step(run: Path) -> float:
    """When the first step of a run was written down, after it had ended; seconds since 1970."""
    board = EventAccumulator(str(run / LOG_FOLDER)).Reload()
    return float(min(event.wall_time for event in board.Scalars("loss/total")))


def _command(name: str, folder: Path, out: Path) -> tuple[str, ...]:
    if name == "help":
        return (*COMMAND, "--help")
    if name == "import":
        return (sys.executable, "-c", "import primus_scale; primus_scale.load_encoder")
    if name == "build":
        places = ("--src", str(folder / "recording"), "--out", str(out))
        return (*COMMAND, "shards", "build", "folder", *places)
    config = out.with_suffix(".yaml")
    config.write_text(RUN.format(output=out, data=folder / "packed"), encoding="utf-8")
    if name == "pretrain":
        return (*COMMAND, "pretrain", "--config", str(config))
    return (sys.executable, "-m", "launch.ray_train", "--config", str(config), "launch.workers=1")


def _write_recording(folder: Path) -> None:
    """A minute of a device that is shaken under gravity."""
    (folder / "walk").mkdir(parents=True)
    time_s = np.arange(60 * RATE_HZ) / RATE_HZ
    shake = np.sin(2 * np.pi * np.outer(time_s, (1.1, 1.3, 1.7, 1.9, 2.3, 2.9)))
    imu = shake + np.array([0, 0, 9.81, 0, 0, 0])
    np.save(folder / "walk" / "imu.npy", np.concatenate([time_s[:, None], imu], axis=1))
    (folder / "recording.yaml").write_text(DESCRIPTION, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
