"""The summary of a whole run, from its log."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from primus_scale.monitor.progress import group_of

EDGE_SHARE = 10  # the first and the last tenth of the logged steps make a summary's first and last


def summarise_run(records: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """``Monitor.summary`` from the lines of a metrics file."""
    steps = [record for record in records if "loss/total" in record]
    logged = [group_of(record, "loss") for record in steps]
    terms = {name for losses in logged for name in losses}
    ends = {}
    for name in sorted(terms):
        # At first there are no neighbours, and the total lacks their terms: it cannot be compared
        # with later totals.
        needed = terms if name == "total" else {name}
        values = [losses[name] for losses in logged if needed <= losses.keys()]
        values = values or [losses[name] for losses in logged if name in losses]
        edge = max(1, len(values) // EDGE_SHARE)
        ends[name] = {
            "first": statistics.fmean(values[:edge]),
            "last": statistics.fmean(values[-edge:]),
        }
    speeds = [r["speed/windows_per_s"] for r in steps if "speed/windows_per_s" in r]
    recalls, chances = (
        [found for record in records if (found := group_of(record, group))]
        for group in ("retrieval", "retrieval_chance")
    )
    return {
        "losses": ends,
        "windows_per_s": statistics.median(speeds[1:] or speeds or [0.0]),
        "retrieval": recalls[-1] if recalls else {},
        "retrieval_chance": chances[-1] if chances else {},
        "steps": int(records[-1]["step"]) if records else 0,
        "skipped_steps": int(steps[-1].get("optimizer/skipped_steps", 0)) if steps else 0,
    }
