"""The built-in data: synthetic triplets from motion capture, and real labelled IMU (UCI HAPT)."""
