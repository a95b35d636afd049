"""primus-scale: distributed pretraining of IMU encoders with the PRIMUS objective."""
