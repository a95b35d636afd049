"""Which parts of sessions a packed record consists of, as its index says."""

from __future__ import annotations

import numpy as np

from primus_scale.data.index import SessionPart
from primus_scale.data.record import Block

_STEP_DIGITS = 6  # of a second: the clocks of recorders do not agree below that


def session_parts(block: Block) -> tuple[SessionPart, ...]:
    """The parts of sessions in ``block``, in its order.

    A part goes on as long as the next window is of the same session and comes later: by the id of
    its recording, then by its start.
    """
    recording, start_s = block.recording, block.start_s
    same_recording = recording[1:] == recording[:-1]
    later = (recording[1:] > recording[:-1]) | (same_recording & (start_s[1:] > start_s[:-1]))
    same_part = (block.session[1:] == block.session[:-1]) & later
    starts = np.flatnonzero(np.concatenate([[True], ~same_part]))
    parts = []
    for first, end in zip(starts, [*starts[1:], len(block)], strict=True):
        steps = np.diff(start_s[first:end])[same_recording[first : end - 1]]
        step_s = round(float(np.median(steps)), _STEP_DIGITS) if len(steps) else 0.0
        parts.append(SessionPart(int(block.session[first]), int(end - first), step_s))
    return tuple(parts)
