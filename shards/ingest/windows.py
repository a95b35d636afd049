"""From a recording to its windows: signal path, places, gates, frames, and a report.

    windows = RecordingWindows(recording, settings)
    windows.report               # devices, counts of windows, refusals by reason
    for window in windows: ...   # in order of time

All windows are judged before the first is made, so that the video is decoded once and only where
needed, and no window waits in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from primus_scale.sample import Window, WindowMeta, window_uid
from shards.ingest.frame_reader import FrameReader
from shards.lag.measure import measure_lag, shift_frames
from shards.readers.people import unknown_person
from shards.recording import Device, FrameSource, Narration, Recording
from shards.report import (
    GRAVITY,
    NO_NARRATION,
    NO_VIDEO,
    REASONS,
    REFUSE,
    DeviceReport,
    LagReport,
    RecordingReport,
)
from shards.settings import IngestSettings
from shards.signal.condition import Conditioned, condition
from shards.signal.cut import PlannedWindow, plan_windows
from shards.signal.device_gates import judge_device, judge_labels
from shards.signal.direction import gravity_direction
from shards.signal.gates import check_window
from shards.signal.tilt import measure_tilt

NO_LABEL = "(none)"  # of windows without one, in reports


@dataclass(frozen=True)
class _Signal:
    """A device with its samples on the common grid."""

    device: Device
    conditioned: Conditioned


class _Synchronised(NamedTuple):
    """Frames and narrations on the IMU's clock, and how they were put there."""

    frames: FrameSource | None
    narrations: Sequence[Narration]
    sync: str
    lag: LagReport | None = None
    notes: tuple[str, ...] = ()


class _Accepted(NamedTuple):
    """A window that passed all gates, ordered by time, then by device."""

    start: int
    device: int
    planned: PlannedWindow
    frames: tuple[int, ...]


class RecordingWindows:
    """The windows of a recording, which must stay open while they are iterated over.

    ValueError where not one device has usable samples; what the reader raises while it reads.
    """

    def __init__(self, recording: Recording, settings: IngestSettings) -> None:
        self._recording = recording
        self._settings = settings
        self._signals, notes = _condition(recording, settings)
        clocks = _synchronise(recording, self._signals, settings)
        self._frame_reader = FrameReader(clocks.frames, settings) if clocks.frames else None
        self._sync = clocks.sync
        self._accepted: list[_Accepted] = []
        self._notes: list[str] = []
        devices = [
            self._judge(number, signal, clocks.narrations)
            for number, signal in enumerate(self._signals)
        ]
        self._accepted.sort(key=lambda window: (window.start, window.device))
        self.report = RecordingReport(
            dataset=recording.dataset,
            name=recording.name,
            person=recording.person,
            session=session_of(recording, settings.session_by),
            windows=len(self._accepted),
            devices=tuple(devices),
            lag=clocks.lag,
            sync=clocks.sync,
            notes=(*recording.notes, *notes, *self._clock_notes(), *clocks.notes, *self._notes),
            left_out=tuple(notes),
            unread=recording.unread,
        )

    def __iter__(self) -> Iterator[Window]:
        moments = [list(group) for _, group in groupby(self._accepted, key=lambda w: w.start)]
        wanted = [moment[0].frames for moment in moments]
        reader = self._frame_reader.encode(wanted) if self._frame_reader else [()] * len(moments)
        for moment, pictures in zip(moments, reader, strict=True):
            for accepted in moment:
                yield self._window(accepted, pictures)

    def _judge(self, number: int, signal: _Signal, narrations: Sequence[Narration]) -> DeviceReport:
        """Plan the windows of a device, keep those that pass, and count the others by reason."""
        device, conditioned = signal.device, signal.conditioned
        planned = plan_windows(
            (conditioned.start_s, conditioned.end_s),
            narrations,
            self._recording.labels,
            self._settings,
            gaps=conditioned.gaps,
        )
        if not planned:
            self._notes.append(self._explain_no_windows(signal))
        report = DeviceReport(
            name=device.name,
            placement=device.placement,
            nominal_rate_hz=device.nominal_rate_hz,
            start_s=conditioned.start_s,
            end_s=conditioned.end_s,
            median_acc=conditioned.median_acc,
            mean_acc=conditioned.mean_acc,
            gravity=conditioned.gravity,
            tilt=measure_tilt(conditioned),
            sensors=conditioned.sensors,
            axes=device.axes,
            gravity_direction=gravity_direction(conditioned),
        )
        findings = judge_device(report, self._settings)
        gravity = any(one.verdict == REFUSE for one in findings)
        refused: Counter[str] = Counter()
        by_label: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for window in planned:
            frames = (
                self._frame_reader.choose(window.start / conditioned.rate_hz)
                if self._frame_reader
                else ()
            )
            reason = GRAVITY if gravity else self._refusal(conditioned, window, frames)
            if reason:
                refused[reason] += 1
                by_label[window.label or NO_LABEL][reason] += 1
            else:
                self._accepted.append(_Accepted(window.start, number, window, frames))
        report = replace(
            report,
            windows=len(planned) - refused.total(),
            refused=_by_reason(refused),
            planned_by_label=dict(sorted(Counter(w.label or NO_LABEL for w in planned).items())),
            refused_by_label={name: _by_reason(by_label[name]) for name in sorted(by_label)},
        )
        labels = judge_labels(report, self._settings)
        return replace(report, findings=(*conditioned.findings, *findings, *labels))

    def _clock_notes(self) -> list[str]:
        """What was done to the times of sensors."""
        sensors = [sensor for signal in self._signals for sensor in signal.conditioned.sensors]
        return [note for sensor in sensors for note in sensor.notes]

    def _explain_no_windows(self, signal: _Signal) -> str:
        """Why no window could be planned, for the notes."""
        name, span_s = signal.device.name, signal.conditioned.end_s - signal.conditioned.start_s
        if span_s < 0:
            return f"no window of {name}: its sensors have no time in common; check their clocks"
        if span_s < self._settings.window_s or not self._recording.labels:
            return f"no window of {name}: it has {span_s:.1f} s, too little for one"
        return f"no window of {name}: none fits into a label's span; check the clock of the labels"

    def _refusal(
        self, signal: Conditioned, window: PlannedWindow, frames: tuple[int, ...]
    ) -> str | None:
        checked = check_window(signal, window.start, self._settings.window_samples)
        if isinstance(checked, str):
            return checked
        if "video" in self._settings.require and not frames:
            return NO_VIDEO
        if "text" in self._settings.require and not window.texts:
            return NO_NARRATION
        return None

    def _window(self, accepted: _Accepted, pictures: tuple[bytes, ...]) -> Window:
        signal = self._signals[accepted.device]
        recording, rate_hz = self._recording, self._settings.rate_hz
        imu = check_window(signal.conditioned, accepted.start, self._settings.window_samples)
        assert not isinstance(imu, str)
        start_s = accepted.start / rate_hz
        meta = WindowMeta(
            uid=window_uid(recording.dataset, recording.name, signal.device.name, start_s),
            dataset=recording.dataset,
            recording=recording.name,
            device=signal.device.name,
            placement=signal.device.placement,
            person=recording.person,
            session=self.report.session,
            start_s=start_s,
            label=accepted.planned.label,
            texts=accepted.planned.texts,
            frame_times_s=self._frame_reader.times_s(accepted.frames) if self._frame_reader else (),
            sync=self._sync,
            axes=signal.device.axes,
            capture=recording.capture,
            clock_zero=recording.clock_zero,
        )
        return Window(imu, meta, pictures)


def session_of(recording: Recording, session_by: str) -> str:
    """The session that a recording is of. session_by: see ``IngestSettings``.

    A recording of an unknown person is one of its own, for others may be of another.
    """
    known = recording.person not in ("", unknown_person(recording.dataset))
    if session_by == "person" and known:
        return recording.person
    if session_by == "auto" and recording.session:
        return recording.session
    return recording.name


def _by_reason(counts: Counter[str]) -> dict[str, int]:
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _synchronise(
    recording: Recording, signals: Sequence[_Signal], settings: IngestSettings
) -> _Synchronised:
    """Measure the lag of the picture behind the first device with a signal; correct it if asked."""
    frames, narrations = recording.frames, recording.narrations
    clocks = _Synchronised(frames if settings.frames else None, narrations, recording.sync)
    if clocks.frames is None:
        return clocks
    first = next((s for s in signals if s.conditioned.segments), signals[0])
    lag = measure_lag(first.conditioned, clocks.frames, first.device.name, settings)
    if isinstance(lag, str):
        return clocks._replace(notes=(lag,))
    if not (lag.flagged and settings.correct_lag):
        return clocks._replace(lag=lag)
    return _Synchronised(
        frames=shift_frames(clocks.frames, lag.lag_s),
        narrations=tuple(
            n._replace(start_s=n.start_s - lag.lag_s, end_s=n.end_s - lag.lag_s) for n in narrations
        ),
        sync=f"{recording.sync}; frames and narrations {-lag.lag_s:+.3f} s, by the measured lag",
        lag=replace(lag, corrected=True),
    )


def _condition(recording: Recording, settings: IngestSettings) -> tuple[list[_Signal], list[str]]:
    """Each device's samples on the grid, and notes on devices that were left out."""
    signals, notes = [], []
    for device in recording.devices:
        try:
            conditioned = condition(
                device,
                channels=settings.channels,
                units=settings.units,
                rate_hz=settings.rate_hz,
                limits=settings,
            )
        except ValueError as error:
            if len(recording.devices) == 1:
                raise
            notes.append(f"device {device.name} left out: {error}")
        else:
            signals.append(_Signal(device, conditioned))
    if not signals:
        raise ValueError("; ".join(notes) or "it has no device with an IMU")
    return signals, notes
