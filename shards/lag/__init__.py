"""Are picture and IMU on one clock? The lag between the two, and how sure of it one can be."""
