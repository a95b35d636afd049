"""Functions of signals as arrays, independent of files and devices.

``units``: factors to SI units. ``resample``: from samples at any times to a uniform grid.
``channels``: find channels that hold no measurement.
"""
