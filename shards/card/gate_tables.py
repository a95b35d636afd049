"""What the tables of gates on the data card show, in the words of ``templates/gates.html``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shards.card.attention import VERDICTS

COLUMNS = 6  # sensors side by side
MOST_SENSORS = 24
MOST_LABELS = 40

Sensors = Sequence[Mapping[str, Any]]


def gate_tables(gates: Mapping[str, Any]) -> dict[str, Any]:
    """What ``templates/gates.html`` shows of ``gates``, which is from ``describe_gates``.

    sensors: names of all. groups: tables of at most COLUMNS sensors side by side (rates, rows left
    out, a figure for each gate); of more than MOST_SENSORS those with most findings. devices,
    labels: a row each. left_out: recordings and reasons of devices that were not used.
    """
    sensors = gates["sensors"]
    names = list(sensors)
    if len(names) > MOST_SENSORS:
        names.sort(key=lambda name: -sum(gate["beyond"] > 0 for gate in sensors[name]["gates"]))
    shown = names[:MOST_SENSORS]
    starts = range(0, len(shown), COLUMNS)
    labelled = any(label != "(none)" for label in gates["labels"])
    return {
        "sensors": names,
        "groups": [_group(sensors, shown[start : start + COLUMNS]) for start in starts],
        "devices": [_device(name, device) for name, device in gates["devices"].items()],
        "labels": [_label(*label) for label in gates["labels"].items()] if labelled else [],
        "left_out": gates["left_out"],
    }


def _group(sensors: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Sensors side by side: their names, rates, and gates."""
    some = [sensors[name] for name in names]
    shares = {name: [one["rows"][name] for one in some] for name in some[0]["rows"]}
    return {
        "names": names,
        "rates": {
            "recordings": [f"{one['recordings']:,}" for one in some],
            "measured rate, Hz": [_format_spread(one["rate_hz"]) for one in some],
            "nominal rate, Hz": [
                ", ".join(f"{hz:g}" for hz in one["nominal_rate_hz"]) or "–" for one in some
            ],
            "gaps (share of time)": [
                f"{one['gaps']:,} ({100 * one['gap_share']:.2g} %)" for one in some
            ],
            "lost samples filled in": [f"{one['filled']:,}" for one in some],
            "rows read": [f"{one['samples']:,}" for one in some],
            **{
                f"{name}, %": [f"{100 * share:.3g}" for share in row]
                for name, row in shares.items()
                if any(row)
            },
        },
        "no_rows": [name for name, row in shares.items() if not any(row)],
        "gates": list(_gate_rows(some)),
    }


def _gate_rows(sensors: Sensors) -> Iterator[dict[str, Any]]:
    """Each gate, with a cell for each sensor: None where the sensor has no such gate."""
    by_gate: dict[str, list[Mapping[str, Any] | None]] = {}
    for place, sensor in enumerate(sensors):
        for gate in sensor["gates"]:
            by_gate.setdefault(gate["gate"], [None] * len(sensors))[place] = gate
    for name, found in by_gate.items():
        first = next(gate for gate in found if gate)
        limits = sorted({limit for gate in found if gate for limit in gate["thresholds"]})
        told = " to ".join(dict.fromkeys(_as_text(x, first) for x in (limits[0], limits[-1])))
        yield {
            "name": name,
            "what": first["what"],
            "bound": f"{'at least' if first['below'] else 'at most'} {told}",
            "verdict": VERDICTS[first["verdict"]],
            "flag": first["flag"],
            "cells": [
                gate and {**gate, **{key: _as_text(gate[key], gate) for key in ("worst", "median")}}
                for gate in found
            ],
        }


def _device(name: str, device: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of devices, and what is beyond a threshold in it."""
    direction = device["gravity_direction"]
    return {
        "cells": [
            name,
            ", ".join(device["placements"]),
            "; ".join(axes or "not known" for axes in device["axes"]),
            ", ".join(f"{part:+.2f}" for part in direction) if direction else "–",
            _format_spread(device["gravity"]),
            _format_spread(device["tilt"]),
            _format_spread(device["agreement"]),
            f"{device['windows']:,}",
            f"{device['refused']:,}",
        ],
        "beyond": [
            f"{gate['gate']}: {_as_text(gate['worst'], gate)} {gate['what']}, beyond "
            f"{_as_text(gate['thresholds'][0], gate)} in {gate['beyond']:,} of {gate['of']:,} "
            "recordings"
            for gate in device["gates"]
            if gate["beyond"]
        ],
    }


def _label(name: str, label: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of labels; shares in percent."""
    return {
        "name": name,
        "planned": label["planned"],
        "refused": 100 * sum(label["refused"].values()) / max(label["planned"], 1),
        "most": 100 * label["threshold"],
        "beyond": label["beyond"],
        "reasons": label["refused"],
    }


def _as_text(value: float, gate: Mapping[str, Any]) -> str:
    """A figure of a gate as text, shares in percent."""
    if gate["what"].startswith("share"):
        return f"{100 * value:.3g} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _format_spread(values: Sequence[float] | None) -> str:
    """Median, smallest and largest (``describe_gates``) as text; one number where all are equal."""
    if values is None:
        return "–"
    median, low, high = (f"{value:.4g}" for value in values)
    return median if low == high else f"{median} ({low} to {high})"
