"""Studies: one configuration in several variants, pretrained and evaluated on the same people.

``study_file`` is what a user writes, ``plan`` the trials that follow from it, ``trial`` does one of
them, ``records`` keeps their results, ``tables`` and ``page`` show them, ``status`` tells how far a
study is. ``launch/study`` runs the trials with Ray Tune.
"""
