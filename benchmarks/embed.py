"""How long frozen teachers take for a window.

    python -m benchmarks.embed --json FILE

Random windows have two pictures each, which they share with nobody, and a narration. A figure is
the difference between embedding many windows and few, which takes out loading the teachers.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import io
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import COMMAND, Taken, run_timed
from benchmarks.run import run_benchmark, write_figures
from benchmarks.synthetic import RATE_HZ, SAMPLES, window_meta
from primus_scale.command_parser import Parser
from primus_scale.sample import CHANNELS, Window
from shards.write.writer import WindowShardWriter

FEW = 16  # windows of the short run
FRAME_TIMES_S = (1.0, 3.0)
PIXELS = 224  # height and width of a picture


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.embed",
        description="ms of a window in shards embed with one worker and one thread: reading, "
        "decoding two pictures, the teachers, and writing packed shards.",
    )
    parser.add_argument("--windows", type=int, default=256, help="of the long run")
    parser.add_argument("--video", default="efficientnet-lite0", help="teacher of pictures")
    parser.add_argument("--text", default="minilm", help="teacher of narrations")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="of each set of teachers, in turn")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser


def _measure(args: argparse.Namespace) -> int:
    video, text = ("--video", args.video), ("--text", args.text)
    signal = ("--signal", "handcrafted")
    teachers = {"video": video, "text": text, "signal": signal, "all": (*video, *text, *signal)}
    window_s: dict[str, list[Taken]] = {name: [] for name in teachers}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counts = (FEW, FEW + args.windows)
        for count in counts:
            _write_windows(folder / str(count), count)
        for number in range(args.rounds):
            for name, chosen in teachers.items():
                few, many = (
                    _embed(folder / str(count), folder / f"{name}{number}-{count}", chosen, args)
                    for count in counts
                )
                wall_s, cpu_s = many.wall_s - few.wall_s, many.cpu_s - few.cpu_s
                window_s[name].append(Taken(wall_s / args.windows, cpu_s / args.windows))
    print(f"{'teachers':>9} {'ms a window':>12} {'CPU ms':>8}   medians")
    for name, rows in window_s.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:>9} {1e3 * wall_s:>12.2f} {1e3 * cpu_s:>8.2f}")
    settings = {name: getattr(args, name) for name in ("windows", "video", "text", "device")}
    found = {name: [row._asdict() for row in rows] for name, rows in window_s.items()}
    write_figures(args.json, 1, {**settings, "window_s": found})
    return 0


def _embed(source: Path, out: Path, teachers: Sequence[str], args: argparse.Namespace) -> Taken:
    places = ("--src", str(source), "--out", str(out))
    how = ("--device", args.device, "--threads", "1")
    command = (*COMMAND, "shards", "embed", *places, *teachers, *how)
    return run_timed(command, OMP_NUM_THREADS="1")


def _write_windows(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    with WindowShardWriter(str(folder), rate_hz=RATE_HZ) as writer:
        for number in range(count):
            texts = (f"somebody does thing number {number}",)
            meta = replace(window_meta(number), frame_times_s=FRAME_TIMES_S, texts=texts)
            imu = rng.standard_normal((len(CHANNELS), SAMPLES)).astype(np.float32)
            frames = tuple(_picture(rng) for _ in FRAME_TIMES_S)
            writer.write(Window(imu, meta, frames))


def _picture(rng: np.random.Generator) -> bytes:
    """A JPEG of coarse random patches, about as large as a frame of a camera."""
    coarse = rng.integers(0, 256, (PIXELS // 8, PIXELS // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((PIXELS, PIXELS)).save(stream, "JPEG")
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(main())
