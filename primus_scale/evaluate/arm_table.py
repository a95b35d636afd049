"""The arms of the few-shot comparison by name: their titles, and how charts draw them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple


class ArmEntry(NamedTuple):
    """An arm in reports.

    role: ``pretrained``: uses the pretrained encoder. ``trained``: trains an encoder from the
    labels. ``fixed``: neither; it fits a classifier to features that were not learned. ``own``: an
    encoder of ``few_shot.own``. colour, marker, line: matplotlib's; no two arms of the table
    have the same marker, so that they can be told apart without colour too.
    """

    title: str
    role: Literal["pretrained", "trained", "fixed", "own"]
    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]] = "-"


# Colours are of Okabe and Ito's and of Tol's muted set, which colour-blind people can tell apart.
_DASHED, _DOTTED, _DASH_DOT = "--", ":", "-."
_LONG, _DASH_DOT_DOT, _SPARSE = (0, (8, 2)), (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3))
_SHORT, _LONG_DOT, _PAIRS = (0, (2, 1)), (0, (9, 2, 1, 2)), (0, (4, 1, 4, 4))
_TRIPLES = (0, (4, 1, 4, 1, 4, 4))
ARMS = {  # in the order of reports
    "pretrained": ArmEntry("pretrained, frozen + linear", "pretrained", "#0072b2", "o"),
    "pretrained_finetuned": ArmEntry(
        "pretrained, fine-tuned", "pretrained", "#000000", "D", _DASHED
    ),
    "lora": ArmEntry("pretrained, low-rank adapters", "pretrained", "#56b4e9", "*", _DASH_DOT),
    "knn": ArmEntry("pretrained, frozen + neighbours", "pretrained", "#332288", "P", _DOTTED),
    "prototypes": ArmEntry("pretrained, frozen + prototypes", "pretrained", "#44aa99", "X", _LONG),
    "scratch": ArmEntry("same encoder from scratch", "trained", "#d55e00", "s", _DASHED),
    "random": ArmEntry("random weights + linear", "fixed", "#6c757d", "^", _DASH_DOT),
    "features": ArmEntry("hand-crafted features", "fixed", "#117733", "v", _DOTTED),
    "features_scaled": ArmEntry(
        "hand-crafted, scaled without labels", "fixed", "#999933", "<", _LONG
    ),
    "features_whitened": ArmEntry(
        "hand-crafted, whitened by session", "fixed", "#e69f00", ">", _DASH_DOT_DOT
    ),
    "forest": ArmEntry("hand-crafted + random forest", "fixed", "#cc79a7", "p", _SPARSE),
    "catch22": ArmEntry("catch22 features + linear", "fixed", "#aa4499", "d", _SHORT),
    "tsfel": ArmEntry("TSFEL features + linear", "fixed", "#cc6677", "H", _LONG_DOT),
    "minirocket": ArmEntry("MiniRocket + ridge", "fixed", "#882255", "h", _PAIRS),
    "multirocket_hydra": ArmEntry("MultiRocket-Hydra + ridge", "fixed", "#009e73", "8", _TRIPLES),
}
PRETRAINED_ARMS = tuple(name for name, arm in ARMS.items() if arm.role == "pretrained")
FIXED_BASELINES = tuple(name for name, arm in ARMS.items() if arm.role == "fixed")

_OWN_STYLES: tuple[tuple[str, str, str | tuple[int, tuple[int, ...]]], ...] = (
    ("#a9441b", "h", "-"),
    ("#364fc7", "8", _DASHED),
    ("#087f5b", "d", _DASH_DOT),
    ("#5f3dc4", "p", _DOTTED),
)


def entries_of(names: Iterable[str]) -> dict[str, ArmEntry]:
    """Arms by name: first those of the table, in its order, then those of ``few_shot.own``."""
    held = list(dict.fromkeys(names))
    own = [name for name in held if name not in ARMS]
    entries = {name: entry for name, entry in ARMS.items() if name in held}
    for number, name in enumerate(own):
        style = _OWN_STYLES[number % len(_OWN_STYLES)]
        entries[name] = ArmEntry(f"{name}, frozen + linear", "own", *style)
    return entries


def pairs_of(names: Iterable[str]) -> dict[str, list[str]]:
    """For each pretrained or own arm those it is compared with: baselines and other own arms."""
    entries = entries_of(names)
    others = [name for name, entry in entries.items() if entry.role != "pretrained"]
    return {
        name: [other for other in others if other != name]
        for name, entry in entries.items()
        if entry.role in ("pretrained", "own")
    }
