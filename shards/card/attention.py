"""What in the figures of a shard folder deserves a second look before a cluster is spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from primus_scale.counted import counted
from primus_scale.monitor.drawing import shown
from shards.card.sessions import session_attention
from shards.report import FLAG, REASONS, REFUSE

GRAVITY_RANGE = (9.5, 10.1)  # m/s2, of the median over a placement's windows
REFUSED_SHARE = 0.2  # of the planned windows
RATE_TOLERANCE = 0.01  # of the nominal rate
ONE_PERSON_SHARE = 0.5  # of the hours
DISTINCT_SHARE = 0.3  # of the narrations
MOST_LETTERS = 400  # of an example
VERDICTS = {FLAG: "flagged", REFUSE: "refused"}


def refusals(ingest: Mapping[str, Any]) -> Counter[str]:
    """Windows refused by reason, over all devices of all recordings, in the order of REASONS."""
    counts: Counter[str] = Counter()
    for recording in ingest["recordings"]:
        for device in recording["devices"]:
            counts.update(device["refused"])
    return Counter({reason: counts[reason] for reason in REASONS if counts[reason]})


def rate_deviations(ingest: Mapping[str, Any]) -> dict[str, list[float]]:
    """Measured against nominal rate in percent, by device name, where a nominal rate is known."""
    deviations: dict[str, list[float]] = {}
    for recording in ingest["recordings"]:
        for device in recording["devices"]:
            nominal = device["nominal_rate_hz"]
            for sensor in device["sensors"] if nominal else ():
                percent = 100 * (sensor["rate_hz"] / nominal - 1)
                deviations.setdefault(device["name"], []).append(percent)
    return dict(sorted(deviations.items()))


def failures(ingest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Recordings that nothing was made of, with the reason."""
    return [(r["name"], r["error"]) for r in ingest["recordings"] if r["error"]]


def lags(ingest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Lag reports of the recordings that have one."""
    return [recording["lag"] for recording in ingest["recordings"] if recording["lag"]]


def attention(figures: Mapping[str, Any]) -> list[str]:
    """Sentences for the head of the card, the gravest first; empty where nothing stands out."""
    ingest = figures["ingest"]
    return [
        *(_of_ingest(figures, ingest) if ingest else ()),
        *(_of_gates(ingest) if ingest else ()),
        *_of_signal(figures),
        *_of_people(figures),
        *session_attention(figures["sessions"]),
        *_of_text(figures),
    ]


def _of_ingest(figures: Mapping[str, Any], ingest: Mapping[str, Any]) -> Iterator[str]:
    failed = failures(ingest)
    if failed:
        yield f"{len(failed)} of {len(ingest['recordings'])} recordings could not be read."
    if unread := ingest["unread"]:
        yield (
            f"What lies in {counted(len(unread), 'place')} of the source was not read, as "
            f"{shown(unread[0], MOST_LETTERS)}: correct the names, or take away what is no data."
        )
    if copies := ingest["copies"]:
        yield (
            f"Equal windows are in {counted(len(copies), 'pair')} of recordings, as "
            f"{shown(copies[0], MOST_LETTERS)}"
        )
    refused = refusals(ingest)
    share = refused.total() / (refused.total() + figures["windows"])
    if share > REFUSED_SHARE:
        reason, count = refused.most_common(1)[0]
        yield (
            f"{100 * share:.0f} % of the planned windows were refused, "
            f"most for: {reason} ({count:,})."
        )
    flagged = [lag for lag in lags(ingest) if lag["flagged"] and not lag["corrected"]]
    if flagged:
        yield (
            f"{len(flagged)} of {len(lags(ingest))} recordings with video are out of step with "
            "their IMU by more than the set lag, and were not corrected."
        )
    for device, values in rate_deviations(ingest).items():
        off = sum(abs(value) > 100 * RATE_TOLERANCE for value in values)
        if off:
            yield f"{device}: {off} of {len(values)} sensors are over 1 % off their nominal rate."


def _of_gates(ingest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each gate that refuses or flags, with the first recording as an example."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in ingest["gates"]["findings"]:
        found.setdefault((finding["verdict"], finding["gate"]), []).append(finding)
    for (verdict, gate), findings in sorted(found.items(), key=lambda pair: pair[0][0] != REFUSE):
        recordings = len({finding["recording"] for finding in findings})
        yield (
            f"{gate.capitalize()}: {VERDICTS[verdict]} in {recordings:,} of "
            f"{len(ingest['recordings']):,} recordings, as in {findings[0]['recording']}: "
            f"{shown(findings[0]['text'], MOST_LETTERS)}."
        )
    left_out = ingest["gates"]["left_out"]
    if left_out:
        recording, why = left_out[0]
        why = shown(why, MOST_LETTERS)
        yield f"{counted(len(left_out), 'time')} a device was left out, as in {recording}: {why}"


def _of_signal(figures: Mapping[str, Any]) -> Iterator[str]:
    low, high = GRAVITY_RANGE
    medians = {
        placement: median
        for placement, (_, median, _) in (figures["gravity"] or {"quantiles": {}})[
            "quantiles"
        ].items()
        if not low <= median <= high
    }
    if medians:
        found = ", ".join(f"{median:.1f} at {name}" for name, median in medians.items())
        yield (
            f"The median of |acceleration| is {found} m/s2, not gravity's {low} to {high}: check "
            "units and calibration, or expect much movement there."
        )


def _of_people(figures: Mapping[str, Any]) -> Iterator[str]:
    hours = figures["hours_by_person"]
    person, most = next(iter(hours.items()))
    share = most / sum(hours.values())
    if len(hours) == 1:
        yield f"All windows are of one person ({person})."
    elif share > ONE_PERSON_SHARE:
        yield f"{100 * share:.0f} % of the hours are of one person ({person})."


def _of_text(figures: Mapping[str, Any]) -> Iterator[str]:
    text = figures["text"]
    if text and text["repeated"]:
        sentence, count = text["repeated"][0]
        share = count / text["narrations"]
        distinct = text["distinct"] / text["narrations"]
        if distinct < DISTINCT_SHARE:
            yield (
                f"Only {100 * distinct:.0f} % of the narrations are distinct; the commonest "
                f"({sentence!r}) makes {100 * share:.1f} %. Equal texts in one batch are false "
                "negatives of the text terms."
            )
