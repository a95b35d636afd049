"""What ``shards build`` prints at its end: what was refused, flagged, left out, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict

from primus_scale.counted import counted
from shards.report import (
    CONFIDENT,
    GAP,
    GRAVITY,
    INVALID,
    NO_NARRATION,
    NO_SENSOR,
    NO_VIDEO,
    REFUSE,
    Finding,
    IngestReport,
    LagReport,
)

REFUSED, FLAGGED = "  REFUSED", "  FLAGGED"  # how lines on gates begin
MOST_CAUSES = 3  # recordings in an error
MOST_NAMED = 20  # lines of a kind that are printed; ingest.json has all
# The settings that a reason's refusals depend on, apart from the window itself.
_SETTINGS = {
    GRAVITY: ("acc_range",),
    INVALID: ("repeat_s", "spike_ratio", "max_acc"),
    GAP: ("gap_s",),
    NO_VIDEO: ("require",),
    NO_NARRATION: ("require",),
}


def summary(found: IngestReport) -> list[str]:
    """What a person wants to know at once of an ingestion; ``ingest.json`` has the rest."""
    from shards.card.attention import failures, refusals

    tree = asdict(found)
    failed, refused = failures(tree), refusals(tree)
    windows = sum(one.windows for one in found.recordings)
    lines = [
        f"ingest  {counted(len(found.recordings), 'recording')}: {counted(windows, 'window')}, "
        f"{refused.total()} refused, {counted(len(failed), 'recording')} failed"
    ]
    lines += [
        f"  refused  {count:>7}  {reason}{_threshold(reason, found.settings)}"
        for reason, count in refused.most_common()
    ]
    findings = _findings(found)
    lines += findings[:MOST_NAMED]
    lags = [(one.name, one.lag) for one in found.recordings if one.lag]
    lags.sort(key=lambda pair: not pair[1].flagged)
    lines += [f"  lag      {name}: {_describe_lag(lag)}" for name, lag in lags[:MOST_NAMED]]
    left_out = [(one.name, why) for one in found.recordings for why in one.left_out]
    lines += [f"  LEFT OUT {name}: {why}" for name, why in left_out[:MOST_NAMED]]
    lines += [f"  COPIES   {line}" for line in found.copies[:MOST_NAMED]]
    lines += [f"  FAILED   {name}: {why}" for name, why in failed[:MOST_NAMED]]
    lines += [f"  not read {line}" for line in found.unread[:MOST_NAMED]]
    more = sum(
        max(len(named) - MOST_NAMED, 0)
        for named in (findings, lags, left_out, found.copies, failed, found.unread)
    )
    return [*lines, f"  and {counted(more, 'line')} more, in ingest.json"] if more else lines


def explain_no_windows(found: IngestReport) -> str:
    """Why no recording gave a window, with the flags that change what is refused."""
    from shards.card.attention import failures, refusals

    tree = asdict(found)
    failed, refused = failures(tree), refusals(tree)
    reasons = [
        f"{counted(count, 'window')} refused: {reason}{_threshold(reason, found.settings)}"
        for reason, count in refused.most_common()
    ]
    if NO_SENSOR in refused:
        reasons.append(
            "no sensor measures some of the windows' channels (of own files, windows.yaml names "
            "the channels: an accelerometer alone will do)"
        )
    findings = [text.strip() for text in _findings(found) if text.startswith(REFUSED)]
    notes = [f"{one.name}: {note}" for one in found.recordings for note in one.notes]
    errors = [f"{name}: {why}" for name, why in failed[:MOST_CAUSES]]
    causes = [*errors, *reasons, *findings[:1]] or notes[:MOST_CAUSES]
    more = len(failed) - MOST_CAUSES
    return "; ".join(causes) + (f"; and {more} more" if more > 0 else "")


def _describe_lag(lag: LagReport) -> str:
    measured = f"picture {lag.lag_s:+.3f} s behind {lag.device}"
    if lag.confidence < CONFIDENT:
        measured = f"uncertain, at best {measured}"
    state = ", corrected" if lag.corrected else ", FLAGGED" if lag.flagged else ""
    return (
        f"{measured} (confidence {lag.confidence:.2f}, correlation {lag.correlation:.2f}, "
        f"{lag.seconds:.0f} s compared){state}"
    )


def _threshold(reason: str, settings: Mapping[str, object]) -> str:
    """The flags that change what is refused for a reason, with their values."""
    named = [name for name in _SETTINGS.get(reason, ()) if name in settings]
    flags = [f"--{name.replace('_', '-')} {_written(settings[name])}" for name in named]
    return f" ({', '.join(flags)})" if flags else ""


def _written(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _findings(found: IngestReport) -> list[str]:
    """A line for each gate of each recording, refusals first."""
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for recording in found.recordings:
        for device in recording.devices:
            for finding in device.findings:
                groups[recording.name, finding.gate].append(finding)
    lines = []
    for (name, _), findings in groups.items():
        more = f"; and {len(findings) - 1} more like it" if len(findings) > 1 else ""
        word = REFUSED if findings[0].verdict == REFUSE else FLAGGED
        lines.append(f"{word}  {name}: {findings[0].text}{more}")
    return sorted(lines, key=lambda line: not line.startswith(REFUSED))
