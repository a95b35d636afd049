"""Narrations of a clip, in several wordings; the wearer is "C", as in Ego4D."""

from __future__ import annotations

import numpy as np

from shards.demo.mocap import STILL_CLIPS

WORDINGS: dict[str, tuple[str, ...]] = {
    "backflip": (
        "does a backflip",
        "jumps and flips over backwards",
        "somersaults backwards in the air",
    ),
    "cartwheel": (
        "does a cartwheel",
        "turns cartwheels sideways",
        "goes over sideways on both hands",
    ),
    "crawl": (
        "crawls on hands and knees",
        "crawls forward on all fours",
        "creeps along the ground",
    ),
    "dance_a": (
        "dances with turns",
        "spins around while dancing",
        "performs a dance with pirouettes",
    ),
    "dance_b": ("dances on the spot", "performs a lively dance", "dances, swinging both arms"),
    "getup_facedown": (
        "lies face down and gets up",
        "pushes up from the ground and stands, then lies down again",
        "stands up from lying on the stomach",
    ),
    "getup_faceup": (
        "lies on the back and gets up",
        "rises from lying on the back, then lies down again",
        "sits up and stands up from the ground",
    ),
    "lie_on_back": ("lies on the back", "rests, lying face up", "is lying down, looking up"),
    "lie_on_front": ("lies on the stomach", "rests, lying face down", "is lying on the front"),
    "lie_on_side": ("lies on one side", "rests, lying sideways", "is lying down on the side"),
    "sit": ("sits on a stool", "sits still", "is sitting with the hands on the lap"),
    "stand": ("stands still", "is standing upright", "stands and waits"),
    "jump": ("jumps forward with both feet", "leaps forward", "makes jumps, one after another"),
    "kick": ("kicks with one leg", "steps forward and kicks high", "performs a martial arts kick"),
    "punch": ("throws punches", "boxes, punching forward", "punches with the fist"),
    "roll": ("rolls forward over the ground", "does a forward roll", "tumbles and gets up again"),
    "run": ("runs forward", "runs at a steady pace", "jogs ahead", "sprints along"),
    "spin": ("spins around", "turns round and round", "twirls with the arms out"),
    "spinkick": ("does a spinning kick", "turns and kicks in the air", "performs spin kicks"),
    "walk": (
        "walks forward",
        "strolls along",
        "walks ahead at an even pace",
        "takes steps forward",
    ),
    "walk_forward": ("walks straight ahead", "walks forward", "goes ahead on foot"),
    "turn_left0": (
        "walks in a curve to the left",
        "turns left while walking",
        "walks, bearing left",
    ),
    "turn_left1": (
        "walks and turns sharply to the left",
        "turns left while walking",
        "walks around to the left",
    ),
    "turn_right0": (
        "walks and turns sharply to the right",
        "turns right while walking",
        "walks around to the right",
    ),
    "turn_right1": (
        "walks in a curve to the right",
        "turns right while walking",
        "walks, bearing right",
    ),
}
GROUND_PHRASES = {
    "tiles": "on a tiled floor",
    "planks": "on a wooden floor",
    "grass": "on the grass",
    "concrete": "on concrete",
}
SLOW, FAST = 0.9, 1.1  # tempos below and above which a narration mentions the tempo


def narrate(
    clip: str, tempo: float, ground: str, rng: np.random.Generator, count: int = 2
) -> tuple[str, ...]:
    """``count`` sentences of different wording about a clip performed at ``tempo``.

    On average every second sentence also names the ground.
    """
    pace = " slowly" if tempo < SLOW else " quickly" if tempo > FAST else ""
    if clip in STILL_CLIPS:
        pace = ""
    chosen = rng.choice(np.array(WORDINGS[clip]), size=count, replace=False)
    phrases = [f" {GROUND_PHRASES[ground]}" if rng.random() < 0.5 else "" for _ in chosen]
    return tuple(
        f"C{pace} {wording}{phrase}." for wording, phrase in zip(chosen, phrases, strict=True)
    )
