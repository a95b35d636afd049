"""Finds the rank that all others wait for, says which it is, and ends the run for a restart.

    with watched(config.train.stuck_after_s, exit_code=75):
        ...

A thread on every rank writes into the store of the process group, every few seconds, that the rank
lives and how far it is (``pulse``). Where a rank has not moved for ``stuck_after_s``, it looks at
what the others wrote: the stuck rank is one that writes no more (halted, machine lost), or else the
one that is behind. Every rank prints that and exits. Ages are taken on each rank's own clock.
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
STORE_S = 10.0  # for one answer of the store
STDERR = 2  # whatever has been put in the place of sys.stderr
SILENCE = 1 / 4  # of the time after which a rank is stuck: without a word, it is halted or lost

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
    """Tells the other ranks of this one, and hears of them, over the store of the process group.

    In a thread of its own: where the store's holder is halted, calls do not come back. entries:
    what each rank has told last. silent: ranks that tell no more. answered: when the store last
    did, on this rank's clock.
    """

    def __init__(self, own: Callable[[], Entry], beat_s: float, look: Callable[[], bool]) -> None:
        super().__init__(name="primus-status", daemon=True)
        self._own, self._beat_s, self._look = own, beat_s, look
        self._keys = [f"primus-scale/alive/{each}" for each in range(world_size())]
        self._store: Any = None
        self._heard: dict[int, tuple[int, float]] = {}  # each rank's last beat, and when it changed
        self.ended = threading.Event()
        self.entries: list[Entry] = []
        self.silent: set[int] = set()
        self.answered = time.monotonic()

    def run(self) -> None:
        while not self.ended.wait(self._beat_s):
            try:
                self.tell()
                if self._look():
                    entries = self._store.multi_get(self._keys)
                    self._hear([json.loads(text) for text in entries])
            except RuntimeError:  # of the network, or that time was up
                self._store = None

    def tell(self) -> None:
        """Write this rank's entry into the store; RuntimeError where that does not answer."""
        self._store = self._store or open_store(timeout_s=STORE_S)
        self._store.set(self._keys[rank()], json.dumps(self._own()))

    def _hear(self, entries: list[Entry]) -> None:
        now = self.answered = time.monotonic()
        for entry in entries:
            if self._heard.get(entry["rank"], (-1, 0.0))[0] != entry["beats"]:
                self._heard[entry["rank"]] = entry["beats"], now
        self.silent = {
            entry["rank"]
            for entry in entries
            if now - self._heard[entry["rank"]][1] > SILENCE * entry["limit_s"]
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
            # Before all meet, so that one that halts right after is known to the others.
            with suppress(RuntimeError):  # else it tells at its first beat
                self._exchange.tell()
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
        """Look, until the end."""
        looked = time.monotonic()
        while not self._ended.wait(self._beat_s):
            halted_s, looked = time.monotonic() - looked, time.monotonic()
            # Of its own, in C: where a call never lets go of the interpreter, this thread halts.
            limit_s = (1 + 2 * SILENCE) * self._stuck_after_s
            faulthandler.dump_traceback_later(limit_s, exit=True, file=STDERR)
            if halted_s > SILENCE * self._stuck_after_s:
                self._forget()
            elif pulse.idle_s > self._stuck_after_s:
                verdict = self._judge()
                if verdict and not self._ended.is_set():
                    self._give_up(verdict)

    def _forget(self) -> None:
        """Drop what was heard of the others: this process itself was halted, so it is stale."""
        if self._exchange is not None:
            self._exchange.answered = time.monotonic()
            self._exchange.entries = []

    def _judge(self) -> str:
        exchange = self._exchange
        if exchange is None:
            return judge([self._describe_self()], set())
        if time.monotonic() - exchange.answered > SILENCE * self._stuck_after_s:
            return f"{_name(self._first)} is halted or lost, it holds the store that all ask"
        return judge(exchange.entries, exchange.silent) if exchange.entries else ""

    def _describe_self(self) -> Entry:
        self._beats += 1
        return {
            **self._self,
            "beats": self._beats,
            "count": pulse.count,
            "step": pulse.step,
            "place": pulse.place,
            "idle_s": pulse.idle_s,
            "limit_s": self._stuck_after_s * pulse.patience,
        }

    def _give_up(self, verdict: str) -> None:
        print(
            f"rank {self._rank}: no progress for {self._stuck_after_s:g} s: {verdict}; ending this "
            "rank. Start again to go on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=STDERR)
        time.sleep(2 * self._beat_s)  # the others look, too, before they lose the connection
        os._exit(self._exit_code)


def judge(entries: list[Entry], silent: set[int]) -> str:
    """Which ranks are stuck, in words; empty where those that are behind may take longer still.

    entries: what every rank has written last. silent: the ranks that write no more.
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
