"""Tasks done once on Ray workers, whoever is killed, and their progress."""
