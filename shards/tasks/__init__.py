"""Tasks that are done once each on Ray workers, their store, and their progress."""
