"""The one signal path: from raw samples to windows in SI units on a common grid, and their gates.

``intake`` cleans and orders the samples of a sensor (``sample_buffer``: on disk), ``condition``
brings them to the grid and joins the sensors of a device; ``cut`` finds places for windows, and
``gates`` says which of them may become records. What needs an array alone, such as resampling,
stands in ``primus_scale.signal``.
"""
