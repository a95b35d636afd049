"""Augmentations of IMU windows: batched, on the device, the same on any number of ranks.

``build_augment`` chains the operations that a configuration lists. Each draws its random
parameters for all N rows of the global batch, and keeps those of this rank. So a window's view
depends on the seed, the step and its row in the global batch alone.

``rotation`` (another orientation of the device) and ``time_flip`` (backwards) give what the sensors
would measure in another real motion. The other operations do not. ``time_warp`` does not change
values, but a quicker motion has larger accelerations and rotations. ``permutation`` has jumps at
its cuts. ``negation`` is neither an orientation of a device nor a mirror image, where angular
velocity would keep its sign. ``scaling``, ``jitter`` and ``channel_dropout`` imitate errors of
sensors.

Shapes: B rows of this rank, N rows of the global batch, C channels, T samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from primus_scale.config import DEFAULT_AUGMENT, AugmentOp
from primus_scale.config.augment import (
    ChannelDropout,
    Jitter,
    Negation,
    Permutation,
    Rotation,
    Scaling,
    TimeFlip,
    TimeWarp,
)
from primus_scale.counted import counted
from primus_scale.sample import UNITS, hash64

ANGULAR_VELOCITY = "rad/s"
VECTORS = frozenset(("m/s2", ANGULAR_VELOCITY, "T"))  # of which three channels turn with the device
LARGE = 2.0**20  # windows with larger magnitudes are scaled down before the operations


def step_generator(seed: int, step: int, device: torch.device | str) -> torch.Generator:
    """The random generator of one training step.

    A pure function of (seed, step), so a resumed run needs no saved generator state.
    """
    generator = torch.Generator(device)
    generator.manual_seed(hash64(f"augment/{seed}/{step}") & (2**63 - 1))
    return generator


@dataclass(frozen=True)
class RowDraws:
    """Random numbers for ``rows`` of a global batch of ``total`` rows."""

    generator: torch.Generator
    rows: slice
    total: int

    def uniform(self, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` from [0, 1)."""
        device = self.generator.device
        drawn = torch.rand(self.total, *shape, generator=self.generator, device=device)
        return drawn[self.rows]

    def normal(self, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` from the standard normal distribution."""
        device = self.generator.device
        drawn = torch.randn(self.total, *shape, generator=self.generator, device=device)
        return drawn[self.rows]


@dataclass(frozen=True)
class Augment:
    """The operations of a configuration in their order; made by ``build_augment``."""

    ops: tuple[AugmentOp, ...]
    units: tuple[str, ...] = UNITS  # of the channels

    def __call__(
        self, imu: torch.Tensor, generator: torch.Generator, rows: slice, total: int
    ) -> torch.Tensor:
        """The augmented view of imu ``(B, C, T)``: a new tensor of the same shape.

        rows: position of these B rows in the global batch of ``total`` rows. generator: in the same
        state on all ranks, and on ``imu``'s device (``step_generator``). Finite samples of any size
        give finite samples. Raises ValueError for a rotation of channels that are no xyz triplets,
        and for a flip of channels without units.
        """
        draws = RowDraws(generator, rows, total)
        scale = _scale_of_large(imu)
        view = imu / scale
        for op in self.ops:
            view = self._apply(op, view, draws)
        limit = torch.finfo(view.dtype).max
        return (view * scale).clamp(-limit, limit)

    def _apply(self, op: AugmentOp, imu: torch.Tensor, draws: RowDraws) -> torch.Tensor:
        """Apply ``op`` to each row with probability ``op.p``."""
        chosen = draws.uniform(1, 1) < op.p
        operations = OPERATIONS | {"time_flip": functools.partial(time_flip, units=self.units)}
        return torch.where(chosen, operations[op.name](imu, op, draws), imu)


def build_augment(ops: Sequence[AugmentOp] | None, units: Sequence[str] = UNITS) -> Augment:
    """The augmentation that applies ``ops`` one after the other; units: of the channels.

    None: those of a configuration that names none, as far as the channels allow. ValueError for a
    rotation of channels that are no xyz triplets of a sensor.
    """
    if ops is None:
        ops = [op for op in DEFAULT_AUGMENT if op.name != "rotation" or _are_triplets(units)]
    if not _are_triplets(units) and any(op.name == "rotation" for op in ops):
        raise ValueError(
            f"augment holds rotation, which turns xyz triplets of {', '.join(sorted(VECTORS))}, "
            f"but the channels are in {', '.join(units)}; give augment without rotation"
        )
    return Augment(tuple(ops), tuple(units))


def _are_triplets(units: Sequence[str]) -> bool:
    """Whether all channels are triplets of vectors, by their units."""
    triplets = [units[first : first + 3] for first in range(0, len(units), 3)]
    return all(len(three) == 3 and set(three) <= {three[0]} & VECTORS for three in triplets)


def _scale_of_large(imu: torch.Tensor) -> torch.Tensor:
    """A power of two for each row, ``(B, 1, 1)``: 1, or near the largest magnitude where LARGE.

    All operations are homogeneous: f(x / s) * s = f(x). So a row can be divided by its scale s
    before them, and squares and sums do not overflow. Division by a power of two is exact.
    """
    peak = imu.abs().amax(dim=(1, 2), keepdim=True)
    exponent = torch.frexp(peak).exponent - 1
    large = (peak > LARGE) & peak.isfinite()
    return torch.ldexp(torch.ones_like(peak), exponent.masked_fill(~large, 0))


def scaling(imu: torch.Tensor, op: Scaling, draws: RowDraws) -> torch.Tensor:
    """Multiply each channel by its own factor, constant over the window."""
    return imu * (1 + op.sd * draws.normal(imu.shape[1], 1))


def jitter(imu: torch.Tensor, op: Jitter, draws: RowDraws) -> torch.Tensor:
    """Add white noise of ``sd`` times each channel's deviation within the window."""
    centred = imu - imu.mean(dim=-1, keepdim=True)
    # Tensor.std is 20 times slower on the CPU.
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / imu.shape[-1] ** 0.5
    return torch.addcmul(imu, deviation * op.sd, draws.normal(*imu.shape[1:]))


def negation(imu: torch.Tensor, op: Negation, draws: RowDraws) -> torch.Tensor:
    """Change the sign of all channels."""
    return -imu


def time_flip(
    imu: torch.Tensor, op: TimeFlip, draws: RowDraws, units: Sequence[str] = UNITS
) -> torch.Tensor:
    """Play backwards: reverse the order of samples, and the sign of angular velocities.

    A motion in reverse turns the other way. Its acceleration, the second derivative in time, keeps
    its sign, and so does gravity.
    """
    if len(units) != imu.shape[1]:
        raise ValueError(
            f"time_flip needs to know which channels are angular velocities, but windows have "
            f"{imu.shape[1]} channels and {len(units)} units; remove time_flip from augment"
        )
    signs = [-1.0 if unit == ANGULAR_VELOCITY else 1.0 for unit in units]
    return imu.flip(-1) * imu.new_tensor(signs)[:, None]


def channel_dropout(imu: torch.Tensor, op: ChannelDropout, draws: RowDraws) -> torch.Tensor:
    """Set channels to zero, each with probability ``rate``, but never all of a row's."""
    drawn = draws.uniform(imu.shape[1], 1)
    return imu * ((drawn >= op.rate) | (drawn == drawn.amax(dim=1, keepdim=True)))


def rotation(imu: torch.Tensor, op: Rotation, draws: RowDraws) -> torch.Tensor:
    """Turn all sensor triplets of a row by the same matrix, as a turned device would."""
    batch, channels, samples = imu.shape
    if channels % 3:
        raise ValueError(
            f"rotation needs xyz triplets of channels, but windows have "
            f"{counted(channels, 'channel')}; remove rotation from augment"
        )
    matrices = rotation_matrices(draws, op.max_deg)
    triplets = imu.view(batch, channels // 3, 3, samples)
    return torch.einsum("bij,bsjt->bsit", matrices, triplets).reshape(imu.shape)


def rotation_matrices(draws: RowDraws, max_deg: float) -> torch.Tensor:
    """``(B, 3, 3)`` matrices of SO(3): axis uniform on the sphere, angle in [0, max_deg).

    Rodrigues' formula: R = I + sin(angle) K + (1 - cos(angle)) K^2, K the axis' cross product.
    """
    axis = torch.nn.functional.normalize(draws.normal(3), dim=-1)
    angle = draws.uniform(1, 1) * math.radians(max_deg)
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).view(-1, 3, 3)
    identity = torch.eye(3, device=axis.device)
    return identity + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def permutation(imu: torch.Tensor, op: Permutation, draws: RowDraws) -> torch.Tensor:
    """Cut each row at its own ``cuts`` random points and put the segments in random order.

    Cut points are drawn with replacement: where two coincide, a segment is empty.
    """
    samples = imu.shape[-1]
    inner = (draws.uniform(op.cuts) * (samples - 1)).long() + 1
    order = draws.uniform(op.cuts + 1).argsort(dim=1)
    edges = torch.nn.functional.pad(inner.sort(dim=1).values, (1, 0))
    lengths = torch.nn.functional.pad(edges[:, 1:], (0, 1), value=samples) - edges
    ends = lengths.gather(1, order).cumsum(dim=1)
    # How far a segment moves back in time: from where it now ends to where it ended before.
    shifts = (edges + lengths).gather(1, order) - ends
    time = torch.arange(samples, device=imu.device).expand(len(imu), samples).contiguous()
    segment = torch.searchsorted(ends, time, right=True)
    return _take_samples(imu, time + shifts.gather(1, segment))


def time_warp(imu: torch.Tensor, op: TimeWarp, draws: RowDraws) -> torch.Tensor:
    """Replay the window at a speed that varies smoothly between random values.

    The speed's logarithm is normal of deviation ``sd`` at ``knots`` points inside the window and
    at both of its ends; the window as a whole keeps its first and last sample.
    """
    samples = imu.shape[-1]
    knots = op.sd * draws.normal(op.knots + 2)
    speed = torch.exp(knots @ _smooth_basis(op.knots + 2, samples - 1, imu.device))
    elapsed = torch.nn.functional.pad(speed.cumsum(dim=1), (1, 0))
    position = elapsed * ((samples - 1) / elapsed[:, -1:])
    before = position.long().clamp_(max=samples - 2)
    fraction = (position - before).unsqueeze(1)
    return torch.lerp(_take_samples(imu, before), _take_samples(imu, before + 1), fraction)


def _smooth_basis(knots: int, points: int, device: torch.device) -> torch.Tensor:
    """``(knots, points)`` weights of raised-cosine interpolation between evenly spaced knots."""
    place = torch.linspace(0, knots - 1, points, device=device)
    distance = (place - torch.arange(knots, device=device)[:, None]).abs().clamp(max=1)
    return 0.5 + 0.5 * torch.cos(math.pi * distance)


def _take_samples(imu: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Samples of imu ``(B, C, T)`` at index ``(B, T)``, the same in all channels of a row."""
    return imu.gather(2, index.unsqueeze(1).expand(imu.shape))


OPERATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "scaling": scaling,
    "jitter": jitter,
    "permutation": permutation,
    "rotation": rotation,
    "time_warp": time_warp,
    "time_flip": time_flip,
    "negation": negation,
    "channel_dropout": channel_dropout,
}
