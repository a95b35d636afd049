"""The lag of the picture behind the IMU, and its confidence."""
