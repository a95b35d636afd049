"""The arms of the few-shot comparison by name: their titles, and how charts draw them."""

from __future__ import annotations

from typing import Literal, NamedTuple


class ArmEntry(NamedTuple):
    """An arm in reports.

    role: ``pretrained``: uses the pretrained encoder. ``trained``: trains an encoder from the
    labels. ``fixed``: neither; it fits a classifier to features that were not learned.
    colour, marker: matplotlib's.
    """

    title: str
    role: Literal["pretrained", "trained", "fixed"]
    colour: str
    marker: str


ARMS = {  # in the order of reports
    "pretrained": ArmEntry("pretrained, frozen + linear", "pretrained", "#1f6feb", "o"),
    "pretrained_finetuned": ArmEntry("pretrained, fine-tuned", "pretrained", "#0b2f75", "D"),
    "scratch": ArmEntry("same encoder from scratch", "trained", "#d9480f", "s"),
    "random": ArmEntry("random weights + linear", "fixed", "#868e96", "^"),
    "features": ArmEntry("hand-crafted features", "fixed", "#2b8a3e", "v"),
    "features_scaled": ArmEntry("hand-crafted, scaled without labels", "fixed", "#74b816", "<"),
    "features_whitened": ArmEntry("hand-crafted, whitened by session", "fixed", "#0ca678", ">"),
    "forest": ArmEntry("hand-crafted + random forest", "fixed", "#a9741b", "p"),
    "minirocket": ArmEntry("MiniRocket + ridge", "fixed", "#9c36b5", "h"),
}
PRETRAINED_ARMS = tuple(name for name, arm in ARMS.items() if arm.role == "pretrained")
BASELINES = tuple(name for name, arm in ARMS.items() if arm.role != "pretrained")
FIXED_BASELINES = tuple(name for name, arm in ARMS.items() if arm.role == "fixed")
