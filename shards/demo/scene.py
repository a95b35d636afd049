"""The scene of a take: ground, light and objects around the body, and the body's clothes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, 0 to 1

GROUNDS = ("tiles", "planks", "grass", "concrete")
SKIN = ((0.95, 0.78, 0.66), (0.87, 0.66, 0.50), (0.68, 0.47, 0.33), (0.43, 0.28, 0.19))
CLOTHES = (
    (0.80, 0.20, 0.18),
    (0.16, 0.32, 0.66),
    (0.20, 0.52, 0.30),
    (0.93, 0.76, 0.25),
    (0.55, 0.28, 0.58),
    (0.90, 0.90, 0.88),
    (0.20, 0.21, 0.25),
    (0.88, 0.48, 0.20),
)
CLEARANCE_M = 1.4  # least distance of objects from the body's path


@dataclass(frozen=True)
class BodyColours:
    """Colours of the body's parts."""

    skin: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour


@dataclass(frozen=True)
class Prop:
    """An object on the ground at ``position``, with its width and height, all in m."""

    shape: Literal["box", "cylinder", "ball"]
    position: tuple[float, float]
    width: float
    height: float
    heading: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """The surroundings of one take. ``sun``: unit vector that points to the light."""

    ground: str
    tint: Colour
    sky: Colour
    sun: tuple[float, float, float]
    props: tuple[Prop, ...]


def random_outfit(rng: np.random.Generator) -> BodyColours:
    """Random clothes; shirt, trousers and shoes differ in colour."""
    shirt, trousers, shoes = rng.choice(len(CLOTHES), size=3, replace=False)
    skin = SKIN[rng.integers(len(SKIN))]
    return BodyColours(skin, CLOTHES[shirt], CLOTHES[trousers], CLOTHES[shoes])


def random_scene(
    rng: np.random.Generator, path: np.ndarray, seat_m: float = 0.0, props: int = 14
) -> Scene:
    """Surroundings of a body that moves along ``path (n, 2)``, m, with objects next to the path.

    seat_m: height of a stool at the start of the path; 0 for none.
    """
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.deg2rad(rng.uniform(40, 70))
    sun = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)])
    objects = [_random_prop(rng, position) for position in _free_positions(rng, path, props)]
    if seat_m > 0:
        x, y = path[0].tolist()
        objects.append(Prop("cylinder", (x, y), 0.36, seat_m, 0.0, CLOTHES[0]))
    return Scene(
        ground=str(rng.choice(GROUNDS)),
        tint=_triple(rng.uniform(0.85, 1.1, size=3)),
        sky=_triple(np.array([0.62, 0.76, 0.92]) * rng.uniform(0.8, 1.08, size=3)),
        sun=_triple(sun),
        props=tuple(objects),
    )


def _random_prop(rng: np.random.Generator, position: np.ndarray) -> Prop:
    shape = rng.choice(np.array(["box", "cylinder", "ball"]), p=[0.5, 0.35, 0.15])
    width = rng.uniform(0.15, 0.7)
    return Prop(
        shape=shape.item(),
        position=(float(position[0]), float(position[1])),
        width=width,
        height=width if shape == "ball" else rng.uniform(0.2, 1.3),
        heading=rng.uniform(0, np.pi),
        colour=CLOTHES[rng.integers(len(CLOTHES))],
    )


def _free_positions(rng: np.random.Generator, path: np.ndarray, count: int) -> list[np.ndarray]:
    """Positions at most 6 m from a point of the path, and at least CLEARANCE_M from all of it."""
    positions: list[np.ndarray] = []
    while len(positions) < count:
        near = path[rng.integers(len(path))]
        direction = rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(CLEARANCE_M, 6.0)
        position = near + distance * np.array([np.cos(direction), np.sin(direction)])
        if np.linalg.norm(path - position, axis=1).min() >= CLEARANCE_M:
            positions.append(position)
    return positions


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
