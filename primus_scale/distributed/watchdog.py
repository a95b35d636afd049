"""Find the rank that all others wait for, name it, and end the run for a restart.

    with watched(config.train.stuck_after_s, exit_code=75):
        ...

A thread on every rank writes the rank's state (``pulse``) into the store of the process group every
few seconds. A rank without progress for ``stuck_after_s`` reads the states of the others. The stuck
rank is the one that no longer writes (its process is halted, or its machine is lost), or else the
one with the lowest count. Every rank prints its name and exits. Each rank measures times on its own
clock.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from primus_scale.distributed.collectives import (
    gather_json,
    is_distributed,
    open_store,
    rank,
    world_size,
)
from primus_scale.distributed.pulse import pulse

BEATS = 20  # in stuck_after_s
LONGEST_BEAT_S = 5.0
STORE_S = 10.0  # for one request to the store
STDERR = 2  # the file itself, since sys.stderr may be replaced
# A rank that has not written for this share of its limit is halted or lost.
SILENT_SHARE = 1 / 4

Entry = Mapping[str, Any]


@contextmanager
def watched(stuck_after_s: float, exit_code: int) -> Iterator[None]:
    """Watch this rank and the others during the block; every rank enters it."""
    watchdog = _Watchdog(stuck_after_s, exit_code)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.end()


class _StatusExchange(threading.Thread):
    """Sends this rank's state to the store of the process group, and reads those of the others.

    It has its own thread, since calls do not return where the process of the store is halted.
    entries: the last state of each rank. silent: ranks that no longer write. answered: time of the
    store's last answer, on this rank's clock.
    """

    def __init__(
        self, own_state: Callable[[], Entry], beat_s: float, reads_others: Callable[[], bool]
    ) -> None:
        super().__init__(name="primus-status", daemon=True)
        self._own_state, self._beat_s, self._reads_others = own_state, beat_s, reads_others
        self._keys = [f"primus-scale/alive/{each}" for each in range(world_size())]
        self._store: Any = None
        # Of each rank: the last number of beats, and when it changed on this rank's clock.
        self._received: dict[int, tuple[int, float]] = {}
        self.ended = threading.Event()
        self.entries: list[Entry] = []
        self.silent: set[int] = set()
        self.answered = time.monotonic()

    def run(self) -> None:
        while not self.ended.wait(self._beat_s):
            try:
                self.send()
                if self._reads_others():
                    entries = self._store.multi_get(self._keys)
                    self._receive([json.loads(text) for text in entries])
            except RuntimeError:  # the network failed, or the request took too long
                self._store = None

    def send(self) -> None:
        """Write this rank's state to the store; RuntimeError where that does not answer."""
        self._store = self._store or open_store(timeout_s=STORE_S)
        self._store.set(self._keys[rank()], json.dumps(self._own_state()))

    def _receive(self, entries: list[Entry]) -> None:
        now = self.answered = time.monotonic()
        for entry in entries:
            if self._received.get(entry["rank"], (-1, 0.0))[0] != entry["beats"]:
                self._received[entry["rank"]] = entry["beats"], now
        self.silent = {
            entry["rank"]
            for entry in entries
            if now - self._received[entry["rank"]][1] > SILENT_SHARE * entry["limit_s"]
        }
        self.entries = entries


class _Watchdog(threading.Thread):
    def __init__(self, stuck_after_s: float, exit_code: int) -> None:
        super().__init__(name="primus-watchdog", daemon=True)
        self._stuck_after_s = stuck_after_s
        self._exit_code = exit_code
        self._beat_s = min(stuck_after_s / BEATS, LONGEST_BEAT_S)
        self._rank = rank()
        self._self = {"rank": self._rank, "host": socket.gethostname(), "pid": os.getpid()}
        self._beats = 0
        self._ended = threading.Event()
        self._exchange: _StatusExchange | None = None
        if is_distributed():
            self._exchange = _StatusExchange(
                self._describe_self, self._beat_s, lambda: pulse.idle_s > stuck_after_s / 2
            )
            # Before the collective below, so that a rank that halts after it is known to others.
            with suppress(RuntimeError):  # the next state is sent at the first beat
                self._exchange.send()
        self._first = gather_json(self._self)[0]
        if self._exchange is not None:
            self._exchange.start()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        if self._exchange is not None:
            self._exchange.ended.set()
            self._exchange.join(self._beat_s + 1)
        self.join()
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Check this rank at every beat, until ``end``."""
        looked = time.monotonic()
        while not self._ended.wait(self._beat_s):
            halted_s, looked = time.monotonic() - looked, time.monotonic()
            # A timer in C: a call that holds the interpreter's lock would halt this thread.
            limit_s = (1 + 2 * SILENT_SHARE) * self._stuck_after_s
            faulthandler.dump_traceback_later(limit_s, exit=True, file=STDERR)
            if halted_s > SILENT_SHARE * self._stuck_after_s:
                self._discard_received()
            elif pulse.idle_s > self._stuck_after_s:
                stuck = self._find_stuck()
                if stuck and not self._ended.is_set():
                    self._end_rank(stuck)

    def _discard_received(self) -> None:
        """Discard the states of the others: this process was halted, so they are out of date."""
        if self._exchange is not None:
            self._exchange.answered = time.monotonic()
            self._exchange.entries = []

    def _find_stuck(self) -> str:
        exchange = self._exchange
        if exchange is None:
            return describe_stuck([self._describe_self()], set())
        if time.monotonic() - exchange.answered > SILENT_SHARE * self._stuck_after_s:
            return f"{_name(self._first)} is halted or lost, it holds the store that all ranks use"
        return describe_stuck(exchange.entries, exchange.silent) if exchange.entries else ""

    def _describe_self(self) -> Entry:
        self._beats += 1
        return {
            **self._self,
            "beats": self._beats,
            "count": pulse.count,
            "step": pulse.step,
            "place": pulse.place,
            "idle_s": pulse.idle_s,
            "limit_s": self._stuck_after_s * pulse.limit_factor,
        }

    def _end_rank(self, stuck: str) -> None:
        print(
            f"rank {self._rank}: no progress for {self._stuck_after_s:g} s: {stuck}; ending this "
            "rank. Start again to go on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=STDERR)
        time.sleep(2 * self._beat_s)  # the others check before they lose the connection
        os._exit(self._exit_code)


def describe_stuck(entries: list[Entry], silent: set[int]) -> str:
    """Name the ranks that are stuck; empty where those that are behind are within their limit.

    entries: the last state of every rank. silent: the ranks that no longer write.
    """
    if silent:
        stuck = [entry for entry in entries if entry["rank"] in silent]
        return "; ".join(f"{_name(entry)} is halted or lost, {_where(entry)}" for entry in stuck)
    least = min(entry["count"] for entry in entries)
    behind = [entry for entry in entries if entry["count"] == least]
    if any(entry["idle_s"] <= entry["limit_s"] for entry in behind):
        return ""
    told = "; ".join(f"{_name(entry)} is stuck, {_where(entry)}" for entry in behind)
    return told if len(behind) < len(entries) or len(entries) == 1 else f"no rank is behind: {told}"


def _name(entry: Entry) -> str:
    return f"rank {entry['rank']} ({entry['host']}, pid {entry['pid']})"


def _where(entry: Entry) -> str:
    return f"last seen at step {entry['step']} in: {entry['place']}"
