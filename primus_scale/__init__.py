"""primus-scale: distributed pretraining of IMU encoders with the PRIMUS objective.

What other programs use of it:

    from primus_scale import load_encoder

    encoder = load_encoder("runs/demo/encoder")
    encoded = encoder.encode(array, rate_hz=100, units=("g", "deg/s"))  # (samples, channels)
    features = encoder(imu).features  # imu (B, C, T) float32, in the units that card.json names
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from primus_scale.encoders.pretrained import load_encoder

__version__: str
__all__ = ["__version__", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Import names at their first use: torch takes seconds, and a command first handles Ctrl-C."""
    if name == "__version__":
        from importlib.metadata import version

        return version("primus-scale")
    if name != "load_encoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from primus_scale.encoders.pretrained import load_encoder

    return load_encoder
