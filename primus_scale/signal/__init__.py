"""Functions of signals as arrays, independent of files and devices.

``units``: factors to SI units. ``resample``: from samples at any times to a uniform grid.
``gaps``: which spacing of samples is a gap. ``array_windows``: from an array to windows.
``channels``: find channels that hold no measurement. ``gravity``: its size, and whether it turns
with the gyroscope. ``plausible``: units and sensors that cannot be right.
``features``: hand-crafted features.
"""
