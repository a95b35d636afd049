"""Studies with Ray Tune: ``primus-scale study run | status``."""
