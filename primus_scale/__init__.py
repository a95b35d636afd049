"""primus-scale: distributed pretraining of IMU encoders with the PRIMUS objective.

What others use of it:

    from primus_scale import load_encoder

    encoder = load_encoder("runs/demo/encoder")
    features = encoder(imu).features  # imu (B, C, T) float32, in the units that card.json names
"""

from primus_scale.encoders.export import load_encoder

__all__ = ["load_encoder"]
