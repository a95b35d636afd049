"""Checks of what goes between ranks: their clocks, and the results and speed of collectives."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

from launch.checks.base import ALL, FAIL, OK, WARN, Check, CheckFinding, Context, format_bytes
from primus_scale.distributed.collectives import gather, message_device, sum_over_ranks

ROUNDS = 20  # of messages between clocks; the quickest counts
MAX_SKEW_S = 1.0  # beyond it logs of nodes cannot be compared

ELEMENTS = 4 * 2**20  # float32 that all-reduce and all-gather move: 16 MiB
REPEATS = 5


class ClockRound(NamedTuple):
    """A message from the first rank to another and its answer; readings of their clocks, in s."""

    sent: float  # first rank
    received: float  # other rank
    answered: float  # other rank
    returned: float  # first rank

    @property
    def round_trip(self) -> float:
        """Seconds that message and answer were on their way."""
        return (self.returned - self.sent) - (self.answered - self.received)


def clock_offset(rounds: list[ClockRound]) -> tuple[float, float]:
    """How far the other clock is ahead of the first rank's, and by how much that may be off, in s.

    From the quickest round, as NTP does (RFC 5905, sections 8 and 10): half of its round trip is
    the most that the offset can be wrong.
    """
    best = min(rounds, key=lambda each: each.round_trip)
    offset = ((best.received - best.sent) + (best.answered - best.returned)) / 2
    return offset, best.round_trip / 2


def measure_clock(context: Context) -> list[list[float]]:
    """Readings of the clock in each round: before and after a message to all, and after theirs."""
    nothing = torch.zeros(1, device=message_device())
    readings = []
    for _ in range(ROUNDS):
        _finish(gather(nothing))  # all ranks start together
        before = time.time()
        _finish(gather(nothing))
        between = time.time()
        _finish(gather(nothing))
        readings.append([before, between, time.time()])
    return readings


def judge_clock(context: Context, ranks: list[list[list[float]]]) -> list[CheckFinding]:
    """Every clock against that of rank 0."""
    offsets = {}
    for rank, readings in enumerate(ranks[1:], start=1):
        pairs = zip(ranks[0], readings, strict=True)
        rounds = [ClockRound(own[0], its[1], its[1], own[2]) for own, its in pairs]
        offsets[rank] = clock_offset(rounds)
    far = {
        rank: f"{offset:+.1f} s from the clock of {context.nodes[0]}; set the clocks by NTP"
        for rank, (offset, error) in offsets.items()
        if abs(offset) - error > MAX_SKEW_S
    }
    if far:
        return context.findings("clock", WARN, far)
    if not offsets:
        return [CheckFinding("clock", ALL, OK, "one rank: nothing to compare")]
    offset, error = max(offsets.values(), key=lambda pair: abs(pair[0]))
    detail = f"largest skew {abs(offset) * 1e3:.2g} ms, known to {error * 1e3:.2g} ms"
    return [CheckFinding("clock", ALL, OK, detail)]


def measure_collectives(context: Context) -> dict[str, Any]:
    """Sum and gather a known pattern in the way the run does; what is wrong, and seconds each."""
    rank, world, device = (getattr(context.runtime, name) for name in ("rank", "world", "device"))
    term = known_pattern(ELEMENTS, rank).to(device)
    row = known_pattern(ELEMENTS // world, rank).to(device)[None]
    one = torch.ones(1, device=device)
    wrong = [wrong_sum(sum_over_ranks(term), world), wrong_rows(gather(row), world)]
    return {
        "wrong": "; ".join(filter(None, wrong)),
        "sum_s": _seconds(lambda: sum_over_ranks(term)),
        "gather_s": _seconds(lambda: gather(row)),
        "latency_s": _seconds(lambda: sum_over_ranks(one)),
    }


def judge_collectives(context: Context, ranks: list[dict[str, Any]]) -> list[CheckFinding]:
    """Results must be right; the slowest rank's speed is everyone's."""
    wrong = {rank: each["wrong"] for rank, each in enumerate(ranks) if each["wrong"]}
    if wrong:
        return context.findings("collectives", FAIL, wrong)
    if len(ranks) == 1:
        return [CheckFinding("collectives", ALL, OK, "one rank: nothing to send")]
    seconds = {key: max(each[key] for each in ranks) for key in ("sum_s", "gather_s", "latency_s")}
    sum_speed = 2 * bus_bytes(ELEMENTS, len(ranks)) / seconds["sum_s"]
    gather_speed = bus_bytes(ELEMENTS, len(ranks)) / seconds["gather_s"]
    backend = "nccl" if context.runtime.device.type == "cuda" else "gloo"
    detail = (
        f"{backend}: all-reduce {format_bytes(sum_speed)}/s, "
        f"all-gather {format_bytes(gather_speed)}/s of bus bandwidth; "
        f"{seconds['latency_s'] * 1e3:.2g} ms for one number; the sum is right"
    )
    return [CheckFinding("collectives", ALL, OK, detail)]


def bus_bytes(elements: int, world: int) -> float:
    """Bytes that cross the busiest link in an all-gather to ``elements`` float32 in all.

    An all-reduce takes twice as many. So speeds of different world sizes can be compared
    (nccl-tests, doc/PERFORMANCE.md, "bus bandwidth").
    """
    return 4 * elements * (world - 1) / world


def known_pattern(elements: int, rank: int) -> torch.Tensor:
    """Small whole numbers, whose sums float32 holds exactly in any order of adding."""
    return torch.arange(elements, dtype=torch.float32) % 8 * (rank + 1)


def wrong_sum(total: torch.Tensor, world: int) -> str:
    """What is wrong with ``total``, the sum of all ranks' patterns; empty where nothing is."""
    expected = known_pattern(len(total), 0) * (world * (world + 1) / 2)
    different = int((total.cpu() != expected).sum())
    return f"all-reduce gave {different} wrong sums of {len(total)}" if different else ""


def wrong_rows(rows: torch.Tensor, world: int) -> str:
    """What is wrong with ``rows`` ``(world, n)``, all ranks' patterns gathered in rank order."""
    if len(rows) != world:
        return f"all-gather gave {len(rows)} rows for {world} ranks"
    expected = torch.stack([known_pattern(rows.shape[1], rank) for rank in range(world)])
    different = int((rows.cpu() != expected).any(dim=1).sum())
    return f"all-gather gave {different} wrong rows of {world}" if different else ""


def _seconds(action: Callable[[], torch.Tensor]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _finish(action())
        times.append(time.perf_counter() - start)
    return median(times)


def _finish(tensor: torch.Tensor) -> None:
    """Wait for ``tensor``: a GPU may still compute it."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


CHECKS = (
    Check("clock", measure_clock, judge_clock, together=True),
    Check("collectives", measure_collectives, judge_collectives, needs=("devices",), together=True),
)
