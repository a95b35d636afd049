"""Tables of the data card: rates, dropped rows, every gate's figure, devices, refusals by label."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from primus_scale.monitor.page import scrolling_table
from shards.card.attention import VERDICTS

COLUMNS = 6  # sensors side by side
MOST_SENSORS = 24
MOST_LABELS = 40

STYLE = """
.gates { margin-bottom: 1.4rem; font-size: .9rem; }
.gates td, .gates th { text-align: left; vertical-align: top; white-space: normal;
                       padding: .35rem .5rem; }
.gates code { white-space: nowrap; }
.gates td.beyond { background: #fff4e6; font-weight: 600; }
"""


def gate_sections(gates: Mapping[str, Any]) -> Iterator[str]:
    """Sections of HTML on ``describe_gates``."""
    sensors = gates["sensors"]
    if sensors:
        yield "<h2>Rates as measured, and rows of the files</h2>"
        yield (
            '<p class="quiet">Rates are over the stretches between gaps: median, and from the '
            "lowest to the highest recording. Rows are in percent of those read; what is not "
            "marked as kept was left out.</p>"
        )
        yield from _of_sensors(sensors, _rate_rows)
        yield "<h2>Every gate of the sensors</h2>"
        yield (
            '<p class="quiet">The worst recording, in brackets the median where it differs; '
            "coloured where it is beyond the threshold, with the number of recordings.</p>"
        )
        yield from _of_sensors(sensors, _gate_rows)
    if gates["devices"]:
        yield "<h2>Devices: axes, gravity, and the gyroscope against it</h2>"
        yield (
            '<p class="quiet">The direction of gravity is the mean reading at rest, which points '
            "up; it is as long as 1 where the device never turned. Gravity is |acceleration| "
            "where the device was still. Gravity should turn 1 time as fast as the gyroscope "
            "says; 57 or 1/57 speaks of degrees and radians.</p>"
        )
        yield _devices(gates["devices"])
    if any(label != "(none)" for label in gates["labels"]):
        yield "<h2>Refusals by label</h2>"
        yield _labels(gates["labels"])
    if gates["left_out"]:
        yield "<h2>Devices that were left out</h2>"
        rows = [[_cell(name), _cell(why)] for name, why in gates["left_out"][:MOST_LABELS]]
        yield _table(("recording", "why"), rows)
        yield _more(gates["left_out"], MOST_LABELS)


Rows = Callable[[Sequence[Mapping[str, Any]]], tuple[tuple[str, ...], list[list[str]]]]
"""From some sensors to the heads of the first columns, and rows of cells."""


def _of_sensors(sensors: Mapping[str, Any], make: Rows) -> Iterator[str]:
    """Tables of a few sensors each, those with most findings first where there are many."""
    names = list(sensors)
    if len(names) > MOST_SENSORS:
        names.sort(key=lambda name: -sum(gate["beyond"] > 0 for gate in sensors[name]["gates"]))
    for start in range(0, min(len(names), MOST_SENSORS), COLUMNS):
        some = names[start : min(start + COLUMNS, MOST_SENSORS)]
        heads, rows = make([sensors[name] for name in some])
        yield _table((*heads, *some), rows)
    yield _more(names, MOST_SENSORS)


def _rate_rows(sensors: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    def row(name: str, cells: list[str]) -> list[str]:
        return [_cell(name), *map(_cell, cells)]

    rows = [
        row("recordings", [f"{one['recordings']:,}" for one in sensors]),
        row("measured rate, Hz", [_spread(one["rate_hz"]) for one in sensors]),
        row(
            "nominal rate, Hz",
            [", ".join(f"{hz:g}" for hz in one["nominal_rate_hz"]) or "–" for one in sensors],
        ),
        row(
            "gaps (share of time)",
            [f"{one['gaps']:,} ({100 * one['gap_share']:.2g} %)" for one in sensors],
        ),
        row("lost samples filled in", [f"{one['filled']:,}" for one in sensors]),
        row("rows read", [f"{one['samples']:,}" for one in sensors]),
    ]
    for name in sensors[0]["rows"]:
        shares = [one["rows"][name] for one in sensors]
        if any(shares):
            rows.append(row(f"{name}, %", [f"{100 * share:.3g}" for share in shares]))
    none = [name for name in sensors[0]["rows"] if not any(one["rows"][name] for one in sensors)]
    if none:
        rows.append(row("no row at all", [f"is {', '.join(none)}"]))
        rows[-1][1] = rows[-1][1].replace("<td>", f'<td colspan="{len(sensors)}">')
    return ("",), rows


def _gate_rows(sensors: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    by_gate: dict[str, list[Mapping[str, Any] | None]] = {}
    for place, sensor in enumerate(sensors):
        for gate in sensor["gates"]:
            by_gate.setdefault(gate["gate"], [None] * len(sensors))[place] = gate
    rows = []
    for name, found in by_gate.items():
        first = next(gate for gate in found if gate)
        limits = sorted({limit for gate in found if gate for limit in gate["thresholds"]})
        told = " to ".join(dict.fromkeys(_figure(x, first) for x in (limits[0], limits[-1])))
        bound = "at least" if first["below"] else "at most"
        rows.append(
            [
                f"<td>{html.escape(name)}<br><small>{html.escape(first['what'])}</small></td>",
                f"<td>{bound} {told}<br><small>else {VERDICTS[first['verdict']]}; "
                f"<code>{html.escape(first['flag'])}</code></small></td>",
                *map(_gate_cell, found),
            ]
        )
    return ("gate", "threshold"), rows


def _gate_cell(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return "<td>–</td>"
    text = _figure(gate["worst"], gate)
    if gate["median"] != gate["worst"]:
        text += f" <small>({_figure(gate['median'], gate)})</small>"
    if not gate["beyond"]:
        return f"<td>{text}</td>"
    where = f"{gate['beyond']:,} of {gate['of']:,} recordings, worst {gate['worst_in']}"
    return f'<td class="beyond">{text}<br><small>{html.escape(where)}</small></td>'


def _figure(value: float, gate: Mapping[str, Any]) -> str:
    """A figure of a gate: shares in percent."""
    if gate["what"].startswith("share"):
        return f"{100 * value:.3g} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _devices(devices: Mapping[str, Any]) -> str:
    heads = (
        *("device", "placement", "axes", "direction of gravity (x, y, z)", "gravity, m/s2"),
        *("turning of gravity over gyroscope's", "their correlation", "windows", "refused"),
        "gates",
    )
    rows = []
    for name, device in list(devices.items())[:MOST_SENSORS]:
        beyond = [gate for gate in device["gates"] if gate["beyond"]]
        gates = "; ".join(
            f"{gate['gate']}: {_figure(gate['worst'], gate)} {gate['what']}, beyond "
            f"{_figure(gate['thresholds'][0], gate)} in {gate['beyond']:,} of {gate['of']:,} "
            "recordings"
            for gate in beyond
        )
        direction = device["gravity_direction"]
        rows.append(
            [
                _cell(name),
                _cell(", ".join(device["placements"])),
                _cell("; ".join(axes or "not known" for axes in device["axes"])),
                _cell(", ".join(f"{part:+.2f}" for part in direction) if direction else "–"),
                _cell(_spread(device["gravity"])),
                _cell(_spread(device["tilt"])),
                _cell(_spread(device["agreement"])),
                _cell(f"{device['windows']:,}"),
                _cell(f"{device['refused']:,}"),
                f'<td class="beyond">{html.escape(gates)}</td>' if beyond else _cell("passed"),
            ]
        )
    return _table(heads, rows) + _more(list(devices), MOST_SENSORS)


def _labels(labels: Mapping[str, Any]) -> str:
    rows = []
    for label, one in list(labels.items())[:MOST_LABELS]:
        refused = sum(one["refused"].values())
        share = f"{100 * refused / max(one['planned'], 1):.3g} %"
        limit = f" (at most {100 * one['threshold']:.3g} %)"
        rows.append(
            [
                _cell(label),
                _cell(f"{one['planned']:,}"),
                f'<td class="beyond">{share}{limit}</td>' if one["beyond"] else _cell(share),
                _cell(", ".join(f"{why}: {count:,}" for why, count in one["refused"].items())),
            ]
        )
    table = _table(("label", "windows planned", "refused", "why"), rows)
    return table + _more(list(labels), MOST_LABELS)


def _spread(values: Sequence[float] | None) -> str:
    """Median, and the range where there is one."""
    if values is None:
        return "–"
    median, low, high = (f"{value:.4g}" for value in values)
    return median if low == high else f"{median} ({low} to {high})"


def _cell(text: str) -> str:
    return f"<td>{html.escape(text)}</td>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    table = scrolling_table(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>")
    return f'<div class="gates">{table}</div>'


def _more(rows: Sequence[object], shown: int) -> str:
    more = len(rows) - shown
    return f'<p class="quiet">and {more:,} more, in card.json</p>' if more > 0 else ""
