"""What ``launch.preflight`` checks before a run, by subject; ``base`` says what a check is."""
