"""The process group, its collectives, the watchdog of stuck ranks, and locks."""
