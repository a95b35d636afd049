"""Evaluations that run at once and share a file of finished work: nothing is computed twice."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from primus_scale.augment import build_augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate import run_few_shot
from primus_scale.evaluate.finished_work import FinishedWork
from tests.few_shot_task import SmallEncoder, few_penalties, make_side  # noqa: F401

FORK = multiprocessing.get_context("fork")
CONFIG = FewShotConfig(
    k=(1, 4), draws=2, trained_draws=2, steps=4, batch=16, lrs=(1e-2,),
    arms=("features", "random", "scratch"),
)  # fmt: skip
SIDES = make_side(range(5)), make_side(range(10, 12))
KEY, OTHER = "a" * 64, "b" * 64
LIMIT_S = 60
pytestmark = pytest.mark.usefixtures("few_penalties")


def evaluate(file: Path | None, report: Callable[[str], None], jobs: int = 1) -> dict[str, Any]:
    """The accuracies of CONFIG's arms."""
    results = run_few_shot(
        *SIDES, SmallEncoder(7), SmallEncoder, build_augment(()), CONFIG,
        report=report, finished=FinishedWork(file, shared=True), jobs=jobs,
    )  # fmt: skip
    return results["few_shot"]


def stop_after(line: str, reached: Any, go_on: Any) -> Callable[[str], None]:
    """A report that halts the evaluation at a line until ``go_on`` is set."""

    def report(told: str) -> None:
        if told.startswith(line):
            reached.set()
            assert go_on.wait(LIMIT_S)

    return report


@pytest.mark.parametrize("end", ["goes on", "is killed"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_second_waits_for_what_the_first_has_begun(tmp_path: Path, end: str, jobs: int) -> None:
    """The first halts within its arm ``features``, until the second has nothing else to do."""
    file = tmp_path / "finished.jsonl"
    reached, go_on = FORK.Event(), FORK.Event()
    halted = stop_after("k=1    features", reached, go_on)
    first = FORK.Process(target=evaluate, args=(file, halted))
    first.start()
    assert reached.wait(LIMIT_S)
    begun = len(file.read_text().splitlines())
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if line == "waiting for another evaluation, which computes features":
            first.kill() if end == "is killed" else go_on.set()

    found = evaluate(file, report, jobs)
    first.join(LIMIT_S)
    assert first.exitcode == (0 if end == "goes on" else -9)
    assert [line for line in lines if line.startswith("waiting")] == [
        "waiting for another evaluation, which computes features"
    ]
    assert sum(line.startswith("k=4    features") for line in lines) == 1
    assert found == evaluate(None, lines.append)
    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert begun == 1 + 2  # the setting and the draws of one arm at one k
    assert len(keys) == len(set(keys)) == 2 * 3 * (1 + 2)


def claim(file: Path, claimed: Any, go_on: Any) -> None:
    with FinishedWork(file, shared=True).claims() as claims:
        assert claims.take(KEY)
        claimed.set()
        go_on.wait(LIMIT_S)


@pytest.mark.parametrize("end", ["is released", "is killed"])
def test_a_claim_ends_with_its_process(tmp_path: Path, end: str) -> None:
    file, claimed, go_on = tmp_path / "finished.jsonl", FORK.Event(), FORK.Event()
    other = FORK.Process(target=claim, args=(file, claimed, go_on))
    other.start()
    assert claimed.wait(LIMIT_S)
    with FinishedWork(file, shared=True).claims() as claims:
        assert not claims.take(KEY) and claims.take(OTHER)
        other.kill() if end == "is killed" else go_on.set()
        other.join(LIMIT_S)
        assert claims.take(KEY)
        claims.release(KEY)


def test_a_file_of_one_evaluation_has_no_locks(tmp_path: Path) -> None:
    with FinishedWork(tmp_path / "finished.jsonl").claims() as claims:
        assert claims.take(KEY)
    assert not any(tmp_path.iterdir())


def test_a_file_of_locks_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    work = FinishedWork(tmp_path / "missing" / "finished.jsonl", shared=True)
    with pytest.raises(OSError, match=r"cannot write .*finished\.jsonl\.lock"), work.claims():
        pass
