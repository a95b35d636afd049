"""A gate: a figure, its threshold, and what is said where the one is beyond the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shards.report import DeviceReport, Finding, SensorReport
from shards.settings import SensorLimits


@dataclass(frozen=True)
class Subject:
    """What gates judge: a sensor's report, or a device's.

    rate_hz: of the windows. clock: where a sensor's times are from. label: of windows judged.
    """

    where: str
    limits: SensorLimits
    sensor: SensorReport | None = None
    device: DeviceReport | None = None
    rate_hz: float = 0.0
    nominal_rate_hz: float | None = None
    clock: str = ""
    label: str = ""


@dataclass(frozen=True)
class Gate:
    """One gate. name, what: of its figure, for headings. setting: its threshold's field.

    verdict: of figures beyond the threshold. figure: None where there is nothing to judge.
    threshold: of the figure (a setting may be a share of something). text: the finding's sentence,
    without where and flag. below: figures below the threshold are the bad ones.
    """

    name: str
    what: str
    setting: str
    verdict: str
    figure: Callable[[Subject], float | None]
    text: Callable[[Subject, float, float], str]
    threshold: Callable[[Subject], float] | None = None
    below: bool = False

    @property
    def flag(self) -> str:
        """The flag of ``shards build`` that changes the threshold."""
        return "--" + self.setting.replace("_", "-")

    def judge(self, subject: Subject) -> Finding | None:
        """What there is to say, if anything."""
        figure = self.figure(subject)
        if figure is None:
            return None
        limits = subject.limits
        threshold = self.threshold(subject) if self.threshold else getattr(limits, self.setting)
        if not (figure < threshold if self.below else figure > threshold):
            return None
        text = f"{subject.where}: {self.text(subject, figure, threshold)} ({self.flag})"
        return Finding(
            self.name,
            subject.where,
            self.verdict,
            float(f"{figure:.6g}"),
            float(threshold),
            self.setting,
            self.flag,
            text,
        )
