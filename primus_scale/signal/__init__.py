"""Signals as arrays, whatever file or device they come from.

``units``: factors to SI units. ``resample``: from samples at any times to a uniform grid.
``channels``: which arrays are no measurement.
"""
