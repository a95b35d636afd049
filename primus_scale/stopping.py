"""Stop on signals: SIGTERM and Ctrl-C end a run after a checkpoint, a second Ctrl-C at once.

    with stop_on_signals(Stop()) as stop:      # in the main thread
        ...                                    # looks at stop.is_set()

A thread receives the signals: Python calls signal handlers in the main thread only, which may wait
for a long time in a collective, or for storage.
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
REPEAT_S = 0.05  # until Ctrl-C comes again where Python could not raise it
_END = 0  # no signal has this number


def end_while_loading() -> None:
    """Until ``restore_interrupts``, Ctrl-C ends this process at once, with one line.

    It is for a program's imports. No work has started yet, and code that is being imported may
    catch KeyboardInterrupt, print it, or turn it into another error. Where Ctrl-C is ignored, as
    in the background of a script, it stays ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def restore_interrupts() -> bool:
    """Let Ctrl-C raise KeyboardInterrupt again; True if ``end_while_loading`` had changed that.

    Python drops an exception in a finalizer or a callback of a weak reference (every import has
    one). Ctrl-C there is sent once more.
    """
    changed = signal.getsignal(signal.SIGINT) is _end_at_once
    if changed and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _repeat_interrupt
    return changed


@contextmanager
def loading() -> Iterator[None]:
    """Ctrl-C in the block ends this process at once: for the imports of a command."""
    end_while_loading()
    try:
        yield
    finally:
        restore_interrupts()


def end_silently() -> None:
    """From now on Ctrl-C ends this process without a message; for the time while Python exits."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _repeat_interrupt(dropped: sys.UnraisableHookArgs) -> None:
    """Send Ctrl-C again if it is what Python dropped, and report any other exception as usual."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    repeat = threading.Timer(REPEAT_S, os.kill, (os.getpid(), signal.SIGINT))
    repeat.daemon = True
    repeat.start()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C without an exception. ``os.write`` is safe in a handler, ``print`` is not."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, b"interrupted; nothing was begun, start it again\n")
    os._exit(INTERRUPTED)


class Stop(threading.Event):
    """An event that is set when a run is to stop. interrupted: Ctrl-C set it."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False

    def set(self, *, interrupted: bool = False) -> None:
        """Request the stop."""
        self.interrupted = self.interrupted or interrupted
        super().set()

    @property
    def exit_code(self) -> int:
        """The exit code of the stopped run."""
        return INTERRUPTED if self.interrupted else REQUEUE


@contextmanager
def stop_on_signals(stop: Stop, on_signal: Callable[[bool], None] | None = None) -> Iterator[Stop]:
    """``stop`` set by SIGTERM and SIGINT; a second SIGINT ends this process.

    on_signal: called too, in another thread, with True for SIGINT. Does nothing outside of the main
    thread, since only that can set signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    listener = threading.Thread(
        target=_listen, args=(receiver, stop, on_signal), name="primus-signals", daemon=True
    )
    listener.start()
    # Handlers that do nothing: Python writes to the pipe only for signals that have a handler.
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


def _listen(receiver: int, stop: Stop, on_signal: Callable[[bool], None] | None) -> None:
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
            if on_signal is not None:
                on_signal(interrupted)


def say(what: str) -> None:
    """Print a line to stderr, on rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):  # the reader of stderr may be gone
            print(what, file=sys.stderr, flush=True)


@contextmanager
def ignore_interrupts_in_children() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C, which a terminal sends to all.

    Their parent receives it, and ends them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _nothing(*_: object) -> None:
    """Do nothing: the thread handles the signal."""
