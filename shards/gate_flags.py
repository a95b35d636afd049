"""Flags of ``shards build`` for the thresholds of gates (``shards.settings.SensorLimits``)."""

from __future__ import annotations

import argparse
from dataclasses import fields

from shards.settings import SHARED_TIMES, IngestSettings

GATE_FLAGS = (
    (
        "--gap-s",
        float,
        "refuse windows over longer times between samples; 1.5 usual spacings are never a gap, nor "
        "2.5 up to 90 ms (a lost sample from 23 Hz on)",
    ),
    ("--min-rate-share", float, "share of the windows' rate; refuse slower sensors"),
    ("--max-rate-hz", float, "refuse faster sensors: their times are in another unit"),
    ("--max-rate-error", float, "flag sensors further off their nominal rate, as a share"),
    ("--max-dropped", float, "flag sensors that lose a larger share of their rows, for any reason"),
    ("--max-shared", float, "flag sensors of which a larger share of rows share times"),
    (
        "--max-jitter-s",
        float,
        "refuse sensors whose shared times lie further off an even clock (standard deviation)",
    ),
    ("--max-clock-steps", int, "flag sensors whose clock was set more often"),
    (
        "--repeat-s",
        float,
        "rows are invalid where a sensor repeats one value for longer (ten times as long if its "
        "steps are coarse)",
    ),
    (
        "--max-repeated",
        float,
        "flag sensors with a larger share of rows of zeros or repeated values",
    ),
    (
        "--spike-ratio",
        float,
        "lone rows that lie this many times as far from their neighbours as 99 percent of the rows "
        "are invalid",
    ),
    ("--max-spikes", float, "flag sensors with a larger share of such rows"),
    ("--high-rotation", float, "rad/s; flag gyroscopes of which one row in 1,000 is above"),
    ("--max-rotation", float, "rad/s; refuse such gyroscopes"),
    (
        "--tilt-factor",
        float,
        "flag where gravity turns faster or slower than the gyroscope by this factor",
    ),
    (
        "--min-agreement",
        float,
        "flag where gravity's turning and the gyroscope correlate less, and more on other axes",
    ),
    ("--max-acc", float, "m/s2; rows of larger values are invalid"),
    ("--max-value", float, "rows of larger values in other SI units are invalid"),
    ("--max-refused", float, "flag labels of which a larger share of windows is refused"),
)


def add_gate_flags(parser: argparse.ArgumentParser) -> None:
    """Add a group with one flag for each threshold."""
    gates = parser.add_argument_group(
        "gates", "thresholds that flag or refuse; docs/ingest.md says what each gate looks at"
    )
    for flag, kind, text in GATE_FLAGS:
        help_text = f"{text} (default: {default_of(flag)})"
        gates.add_argument(flag, type=kind, metavar="N", help=help_text)
    gates.add_argument(
        "--acc-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="m/s2; refuse devices whose gravity, in seconds when they are still, is outside "
        "(default: 8 12)",
    )
    gates.add_argument(
        "--shared-times",
        choices=SHARED_TIMES,
        help="which of the samples that share a time has it, where the data do not show it: "
        "packets stamped as they begin or times cut to whole steps: first; rounded times: middle; "
        "packets stamped as they end: last (default: refuse such sensors)",
    )


def default_of(flag: str) -> float | None:
    """Default of a setting, where it has one that does not depend on the reader."""
    name = flag.removeprefix("--").replace("-", "_")
    value = next(one.default for one in fields(IngestSettings) if one.name == name)
    return value if isinstance(value, int | float) else None
