"""primus-scale: distributed pretraining of IMU encoders with the PRIMUS objective.

What other programs use of it:

    from primus_scale import load_encoder

    encoder = load_encoder("runs/demo/encoder")
    features = encoder(imu).features  # imu (B, C, T) float32, in the units that card.json names
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from primus_scale.encoders.export import load_encoder

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Import names at their first use: torch takes seconds, and a command first handles Ctrl-C."""
    if name != "load_encoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from primus_scale.encoders.export import load_encoder

    return load_encoder
