"""The arms of the few-shot comparison by name: their titles, and how charts draw them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple


class ArmEntry(NamedTuple):
    """An arm in reports.

    role: ``pretrained``: uses the pretrained encoder. ``trained``: trains an encoder from the
    labels. ``fixed``: neither; it fits a classifier to features that were not learned. ``own``: an
    encoder of ``few_shot.own``. colour, marker: matplotlib's.
    """

    title: str
    role: Literal["pretrained", "trained", "fixed", "own"]
    colour: str
    marker: str


ARMS = {  # in the order of reports
    "pretrained": ArmEntry("pretrained, frozen + linear", "pretrained", "#1f6feb", "o"),
    "pretrained_finetuned": ArmEntry("pretrained, fine-tuned", "pretrained", "#0b2f75", "D"),
    "lora": ArmEntry("pretrained, low-rank adapters", "pretrained", "#4dabf7", "*"),
    "knn": ArmEntry("pretrained, frozen + neighbours", "pretrained", "#15aabf", "P"),
    "prototypes": ArmEntry("pretrained, frozen + prototypes", "pretrained", "#7950f2", "X"),
    "scratch": ArmEntry("same encoder from scratch", "trained", "#d9480f", "s"),
    "random": ArmEntry("random weights + linear", "fixed", "#868e96", "^"),
    "features": ArmEntry("hand-crafted features", "fixed", "#2b8a3e", "v"),
    "features_scaled": ArmEntry("hand-crafted, scaled without labels", "fixed", "#74b816", "<"),
    "features_whitened": ArmEntry("hand-crafted, whitened by session", "fixed", "#0ca678", ">"),
    "forest": ArmEntry("hand-crafted + random forest", "fixed", "#a9741b", "p"),
    "catch22": ArmEntry("catch22 features + linear", "fixed", "#e8590c", "d"),
    "tsfel": ArmEntry("TSFEL features + linear", "fixed", "#c2255c", "H"),
    "minirocket": ArmEntry("MiniRocket + ridge", "fixed", "#9c36b5", "h"),
}
PRETRAINED_ARMS = tuple(name for name, arm in ARMS.items() if arm.role == "pretrained")
FIXED_BASELINES = tuple(name for name, arm in ARMS.items() if arm.role == "fixed")

_OWN_STYLES = (("#f03e3e", "3"), ("#364fc7", "8"), ("#087f5b", "1"), ("#5f3dc4", "2"))


def entries_of(names: Iterable[str]) -> dict[str, ArmEntry]:
    """Arms by name, those of the table in its order, then encoders of ``few_shot.own`` as given."""
    held = list(dict.fromkeys(names))
    own = [name for name in held if name not in ARMS]
    entries = {name: entry for name, entry in ARMS.items() if name in held}
    for number, name in enumerate(own):
        style = _OWN_STYLES[number % len(_OWN_STYLES)]
        entries[name] = ArmEntry(f"{name}, frozen + linear", "own", *style)
    return entries


def pairs_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Of pretrained and own arms the ones that each is compared with: baselines, and own arms."""
    entries = entries_of(names)
    others = [name for name, entry in entries.items() if entry.role != "pretrained"]
    return {
        name: [other for other in others if other != name]
        for name, entry in entries.items()
        if entry.role in ("pretrained", "own")
    }
