import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from primus_scale.processes import ENDED, Died, open_processes


def squares(start: int) -> Iterator[int]:
    for number in range(start, start + 3):
        yield number**2


@pytest.mark.parametrize("jobs", [1, 2])
def test_items_come_with_their_tag_and_then_the_end(jobs: int) -> None:
    found: dict[str, list[object]] = {"a": [], "b": []}
    with open_processes(jobs) as processes:
        waiting = ["b", "a"]
        while waiting or processes.busy:
            while waiting and not processes.full:
                tag = waiting.pop()
                processes.start(tag, partial(squares, {"a": 1, "b": 5}[tag]))
            tag, item = processes.wait()
            found[tag].append(item)
    assert found == {"a": [1, 4, 9, ENDED], "b": [25, 36, 49, ENDED]}


class Left:
    """Garbage that only a collection finds; it tells the process in which it was found."""

    def __init__(self, file: Path) -> None:
        self.itself, self.file = self, file

    def __del__(self) -> None:
        with self.file.open("a") as ends:
            ends.write(f"{os.getpid()}\n")


def collecting() -> Iterator[bool]:
    gc.collect()
    yield gc.isenabled()


def test_a_fork_does_not_end_what_its_parent_has_left(tmp_path: Path) -> None:
    file = tmp_path / "ends"
    gc.disable()
    try:
        Left(file)
        with open_processes(2) as processes:
            processes.start("a", collecting)
            assert processes.wait() == ("a", True)
            assert processes.wait() == ("a", ENDED)
            assert not gc.isenabled()  # left as it was
        assert not file.exists()
        gc.collect()
        assert file.read_text() == f"{os.getpid()}\n"
    finally:
        gc.enable()


def failing() -> Iterator[int]:
    yield 1
    raise ValueError("give smaller values of lrs")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_work_is_raised_here(jobs: int) -> None:
    with open_processes(jobs) as processes, pytest.raises(ValueError, match="values of lrs"):
        processes.start("a", failing)
        assert processes.wait() == ("a", 1)
        processes.wait()


def killed() -> Iterator[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield 1


def killed_within_an_item() -> Iterator[bytes]:
    """Its item is larger than a pipe holds, so it is still being sent."""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    yield bytes(2**22)


def test_a_process_killed_within_an_item_is_told() -> None:
    with open_processes(2) as processes:
        before = {*multiprocessing.active_children()}
        processes.start("a", killed_within_an_item)
        (process,) = {*multiprocessing.active_children()} - before
        process.join(60)  # however slow its start: what it sends is not read before its end
        tag, item = processes.wait()
        assert tag == "a" and isinstance(item, Died)


def faulty() -> Iterator[int]:
    yield from {}["absent"]


def test_a_fault_of_the_program_tells_its_line() -> None:
    with open_processes(2) as processes, pytest.raises(KeyError) as found:
        processes.start("a", faulty)
        processes.wait()
    assert "in faulty" in "".join(found.value.__notes__)


def test_a_killed_process_is_told_and_another_may_take_its_place() -> None:
    with open_processes(2) as processes:
        processes.start("a", killed)
        tag, item = processes.wait()
        assert (tag, item) == ("a", Died("it was killed, perhaps for want of memory"))
        assert not processes.busy
        processes.start("b", lambda: squares(2))
        assert processes.wait() == ("b", 4)


def endless() -> Iterator[int]:
    yield os.getpid()
    time.sleep(600)


def is_gone(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        # A process that nobody has waited for yet is still listed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_the_end_of_the_block_ends_every_process() -> None:
    with pytest.raises(KeyboardInterrupt), open_processes(2) as processes:
        processes.start("a", endless)
        _, pid = processes.wait()
        raise KeyboardInterrupt
    assert is_gone(pid)


def start_endless_work(sender: Connection) -> None:
    with open_processes(2) as processes:
        processes.start("a", endless)
        sender.send(processes.wait()[1])
        processes.wait()


def test_processes_end_where_their_parent_was_killed() -> None:
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    parent = fork.Process(target=start_endless_work, args=(sender,))
    parent.start()
    pid = receiver.recv()
    parent.kill()
    parent.join()
    for _ in range(200):
        if is_gone(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("a process outlives its parent")


def threads() -> Iterator[list[int]]:
    np.ones((64, 64)) @ np.ones((64, 64))
    yield [library["num_threads"] for library in threadpool_info()]


def test_limits_on_threads_hold_in_the_processes() -> None:
    with threadpool_limits(1), open_processes(2) as processes:
        processes.start("a", threads)
        _, found = processes.wait()
    assert found
    assert set(found) == {1}
