"""Label a live signal: a recording is replayed in real time, and each window that is full is told.

    python examples/stream.py recordings/p01.csv --examples recordings/p02.csv recordings/p03.csv

A window of the encoder's length is taken every ``--hop-s``, encoded as it was recorded, and given
the class of the examples whose mean features are nearest. Replace ``replay`` with what reads your
device: an iterator over rows, as they come. The files are CSV with the columns of ``--columns``
and, of examples, ``--label``. ``--speed 10`` replays ten times as fast.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from primus_scale import load_encoder
from primus_scale.encoders.pretrained import PretrainedEncoder


def main(argv: Sequence[str] | None = None) -> int:
    """Replay the file that the command line names."""
    args = build_parser().parse_args(argv)
    encoder = load_encoder(args.encoder)
    classes = class_means(encoder, args)
    rows = pd.read_csv(args.recording)[args.columns].to_numpy(np.float64)
    for start_s, window in windows(replay(rows, args.rate_hz, args.speed), encoder, args):
        began = time.perf_counter()
        features = encode(encoder, window, args)
        if features is None:
            print(f"{start_s:7.1f} s  (gap or dead channel)", flush=True)
            continue
        label, cosine = nearest(features, classes)
        took_ms = (time.perf_counter() - began) * 1e3
        print(f"{start_s:7.1f} s  {label:<20} {cosine:5.2f}  {took_ms:4.0f} ms", flush=True)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recording", type=Path, metavar="FILE", help="CSV file to replay")
    parser.add_argument(
        "--examples", type=Path, nargs="+", required=True, metavar="FILE", help="with labels"
    )
    parser.add_argument("--encoder", default="demo", help="as of load_encoder (default: demo)")
    parser.add_argument("--rate-hz", type=float, default=100.0)
    parser.add_argument("--units", nargs="+", default=["g", "deg/s"])
    parser.add_argument("--columns", nargs="+", default=["ax", "ay", "az", "gx", "gy", "gz"])
    parser.add_argument("--label", default="activity", help="column of the examples")
    parser.add_argument("--hop-s", type=float, default=1.0, help="from a window to the next")
    parser.add_argument("--speed", type=float, default=1.0, help="1 is real time")
    return parser


def replay(rows: np.ndarray, rate_hz: float, speed: float) -> Iterator[np.ndarray]:
    """Rows ``(C,)`` at the times at which a device would give them."""
    began = time.monotonic()
    for number, row in enumerate(rows):
        due_s = number / rate_hz / speed - (time.monotonic() - began)
        if due_s > 1e-3:  # shorter sleeps are not kept
            time.sleep(due_s)
        yield row


def windows(
    rows: Iterable[np.ndarray], encoder: PretrainedEncoder, args: argparse.Namespace
) -> Iterator[tuple[float, np.ndarray]]:
    """Start in seconds and samples ``(C, n)`` of each window, as soon as its last row is there."""
    length = round(encoder.window_samples / encoder.rate_hz * args.rate_hz)
    hop = max(1, round(args.hop_s * args.rate_hz))
    held: deque[np.ndarray] = deque(maxlen=length)
    for number, row in enumerate(rows, 1):
        held.append(row)
        if number >= length and (number - length) % hop == 0:
            yield (number - length) / args.rate_hz, np.stack(held, axis=1)


def encode(
    encoder: PretrainedEncoder, window: np.ndarray, args: argparse.Namespace
) -> np.ndarray | None:
    """Features ``(D,)`` of a window; None where it has none.

    One window may be too short to tell its units, which the examples have told already.
    """
    found = encoder.encode(window[None], args.rate_hz, args.units, check_units=False)
    return found.features[0] if found.good[0] else None


def class_means(encoder: PretrainedEncoder, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """The mean features ``(D,)`` of each class of the examples, of unit length."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for file in args.examples:
        table = pd.read_csv(file)
        runs = (table[args.label] != table[args.label].shift()).cumsum()
        for _, rows in table.groupby(runs):  # rows of one class that follow each other
            if len(rows) < encoder.window_samples / encoder.rate_hz * args.rate_hz:
                continue
            encoded = encoder.encode(rows[args.columns].to_numpy(), args.rate_hz, args.units)
            found[str(rows[args.label].iloc[0])] += list(encoded.features[encoded.good])
    if not found:
        raise SystemExit("no example lasts as long as a window; give longer ones")
    return {label: unit(np.mean(features, axis=0)) for label, features in found.items()}


def nearest(features: np.ndarray, classes: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """The class with the largest cosine, and that cosine."""
    cosines = {label: float(unit(features) @ mean) for label, mean in classes.items()}
    label = max(cosines, key=lambda one: cosines[one])
    return label, cosines[label]


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at unit length."""
    return np.asarray(vector / np.linalg.norm(vector))


if __name__ == "__main__":
    raise SystemExit(main())
