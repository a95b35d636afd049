"""Told to stop: SIGTERM and Ctrl-C end a run after a checkpoint, a second Ctrl-C at once.

    with stop_on_signals(Stop()) as stop:      # in the main thread
        ...                                    # looks at stop.is_set()

A thread of its own hears the signals: Python calls its handlers in the main thread only, which may
wait in a collective, or for storage, and not come back.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

REQUEUE = os.EX_TEMPFAIL  # 75: stopped by a signal after a checkpoint; start again to go on
INTERRUPTED = 130  # by Ctrl-C, as shells say it
_END = 0  # no signal has this number


def end_while_loading() -> None:
    """From here on Ctrl-C ends this process at once, with one line, until ``hear_again``.

    For a program's imports: nothing is begun yet, and an exception may pass through any of them,
    which tell of it or turn it into another. Where Ctrl-C is ignored, as in the background of a
    script, it stays so.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def hear_again() -> bool:
    """Have Ctrl-C raise KeyboardInterrupt again; whether ``end_while_loading`` had changed that."""
    changed = signal.getsignal(signal.SIGINT) is _end_at_once
    if changed and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return changed


@contextmanager
def loading() -> Iterator[None]:
    """Ctrl-C in the block ends this process at once: for the imports of a command."""
    end_while_loading()
    try:
        yield
    finally:
        hear_again()


def end_silently() -> None:
    """Ctrl-C ends this process without a word from now on: while Python ends."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C without an exception. The line is written at once, for print may be busy."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, b"interrupted; nothing was begun, start it again\n")
    os._exit(INTERRUPTED)


class Stop(threading.Event):
    """Set where a run is to stop. interrupted: whether Ctrl-C said so."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False

    def set(self, *, interrupted: bool = False) -> None:
        """Have it stop."""
        self.interrupted = self.interrupted or interrupted
        super().set()

    @property
    def exit_code(self) -> int:
        """Of a run that has stopped."""
        return INTERRUPTED if self.interrupted else REQUEUE


@contextmanager
def stop_on_signals(stop: Stop, ask: Callable[[bool], None] | None = None) -> Iterator[Stop]:
    """``stop`` set by SIGTERM and SIGINT; a second SIGINT ends this process.

    ask: called instead, in another thread, with whether it was SIGINT. Does nothing outside a
    program's main thread, which alone can listen for signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    listener = threading.Thread(
        target=_listen, args=(receiver, stop, ask), name="primus-signals", daemon=True
    )
    listener.start()
    # Handlers that do nothing: without one, Python would not write to the pipe.
    previous = {each: signal.signal(each, _nothing) for each in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        for each, handler in previous.items():
            signal.signal(each, handler)
        os.write(sender, bytes([_END]))
        listener.join()
        os.close(sender)
        os.close(receiver)


def _listen(receiver: int, stop: Stop, ask: Callable[[bool], None] | None) -> None:
    interrupts = 0
    while (number := os.read(receiver, 1)[0]) != _END:
        interrupted = number == signal.SIGINT
        interrupts += interrupted
        if interrupts > 1:
            say("interrupted again: ending at once")
            os._exit(INTERRUPTED)
        if interrupted or number == signal.SIGTERM:
            if interrupted:
                say("interrupted: stopping after a checkpoint; Ctrl-C again ends at once")
            stop.set(interrupted=interrupted)
            if ask is not None:
                ask(interrupted)


def say(what: str) -> None:
    """A line for whoever reads; ranks but the first stay silent."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):  # who read it may be gone
            print(what, file=sys.stderr, flush=True)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started in the block do not hear Ctrl-C, which a terminal sends to all.

    Their parent hears it, and ends them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _nothing(*_: object) -> None:
    """Handle a signal that a thread hears of."""
