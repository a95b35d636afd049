"""Studies: one configuration in several variants, pretrained and evaluated on the same people.

- ``study_file`` reads what a user writes, and ``plan`` makes the trials of it.
- ``trial`` does one trial, and ``records`` keeps the results.
- ``tables`` and ``page`` show them, and ``status`` says how far a study is.

``launch/study`` runs the trials with Ray Tune.
"""
