"""Units of signals, and the factors to the SI units that windows have."""

from __future__ import annotations

import math

GRAVITY = 9.80665  # m/s2
DEGREE = math.pi / 180

# Units that readers may state: the SI unit that windows have, and the factor to it. "-g" is that of
# iOS, which gives -1 on the axis that points up at rest, where all others give 1. "g/64" is the
# wrist unit of PPG-DaLiA and WESAD (Empatica E4). "1" is a number of no known unit, kept as it is.
UNIT_FACTORS: dict[str, tuple[str, float]] = {
    "m/s2": ("m/s2", 1.0),
    "g": ("m/s2", GRAVITY),
    "-g": ("m/s2", -GRAVITY),
    "mg": ("m/s2", GRAVITY * 1e-3),
    "g/64": ("m/s2", GRAVITY / 64),
    "rad/s": ("rad/s", 1.0),
    "mrad/s": ("rad/s", 1e-3),
    "deg/s": ("rad/s", DEGREE),
    "V": ("V", 1.0),
    "mV": ("V", 1e-3),
    "uV": ("V", 1e-6),
    "T": ("T", 1.0),
    "uT": ("T", 1e-6),
    "1": ("1", 1.0),
}
