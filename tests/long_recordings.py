"""Long recordings for benchmarks: a real camera's telemetry over and over, and Aria's VRS as made.

python -m tests.long_recordings FOLDER --minutes 30
python -m benchmarks.ingest gopro=FOLDER/long.mp4 aria=FOLDER/long.vrs
"""

import argparse
from pathlib import Path

import av
import numpy as np

from tests.recordings import recording_path
from tests.vrs_factory import IMU_LEFT, IMU_RIGHT, make_imu, write_vrs


def write_long_gopro(path: Path, minutes: float) -> None:
    """The telemetry of the real sample, repeated; its counts of samples begin anew each time."""
    with (
        av.open(str(recording_path("gopro_max_hero.mp4"))) as file,
        av.open(str(path), "w") as copy,
    ):
        (track,) = (stream for stream in file.streams.data if stream.name == "bin_data")
        packets = [packet for packet in file.demux(track) if packet.size]
        contents = [(bytes(packet), packet.pts, packet.duration) for packet in packets]
        span = contents[-1][1] + contents[-1][2]
        copied = copy.add_stream_from_template(track)
        for turn in range(round(60 * minutes / float(span * track.time_base))):
            for data, pts, duration in contents:
                packet = av.Packet(data)
                packet.pts = packet.dts = pts + turn * span
                packet.duration, packet.time_base = duration, track.time_base
                packet.stream = copied
                copy.mux(packet)


def write_long_vrs(path: Path, minutes: float) -> None:
    """Two IMUs of Gen 1 at rest: 800 Hz on the left, 1000 Hz on the right."""
    imus = {}
    for seed, (stream, rate_hz) in enumerate({IMU_LEFT: 800, IMU_RIGHT: 1000}.items()):
        times = np.arange(round(60 * minutes * rate_hz)) * (10**9 // rate_hz) + 10**9
        imus[stream] = make_imu(times, seed=seed)
    write_vrs(path, imus)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write long.mp4 and long.vrs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write_long_gopro(args.folder / "long.mp4", args.minutes)
    write_long_vrs(args.folder / "long.vrs", args.minutes)


if __name__ == "__main__":
    main()
