"""One few-shot comparison as pieces of work, which one or several processes do.

An arm at one k needs a choice of its setting, and then a fit for each draw of labels. For an arm
that trains an encoder each of these is a piece of its own. For the others, which take a fraction of
a second each, all of them together are one piece.

Evaluations that share a file of finished work may run at once. Each claims what it begins: a piece
of an arm that trains, or another arm with all its pieces, so that nobody else computes its
features. What another has claimed is done last, by then from the file; or here, if it was killed.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arms import Arm, HeldOutTrial, Setting, TrainingRows
from primus_scale.evaluate.draws import (
    LabelledWindows,
    Labels,
    choose_windows,
    hold_out_people,
    keyed_generator,
    keyed_seed,
)
from primus_scale.evaluate.finished_work import Claims, FinishedWork, digest
from primus_scale.evaluate.results import format_setting
from primus_scale.evaluate.statistics import score_people
from primus_scale.processes import ENDED, Died, Processes, open_processes

LOOK_S = 0.5  # between two looks at what another evaluation does
DRAWS_OF_ALL = 3  # all draws of "all" are equal, so repeats show the spread of training only


class Piece(NamedTuple):
    """Work of one process for an arm at one k: choose its setting (or not), then fit some draws."""

    k: Labels
    arm: str
    chooses: bool
    draws: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Arms by name, on the labels of some people and the windows of others.

    keys: by arm, a digest of everything that its setting depends on, except k. seed: of fresh
    weights and of the random choices of training; the labels depend on ``config.seed`` alone.
    """

    arms: Mapping[str, Arm]
    keys: Mapping[str, str]
    label: LabelledWindows
    test: LabelledWindows
    config: FewShotConfig
    seed: int

    def setting_key(self, k: Labels, name: str) -> str:
        """The key of the arm's setting in finished work."""
        return digest(self.keys[name], str(k))

    def draw_keys(self, k: Labels, name: str) -> list[str]:
        """The key of each draw in finished work.

        It is made of the setting's key and of what else the answers depend on. An arm without
        random choices answers the same for every pretraining seed and, where all windows are
        labelled, in every draw.
        """
        arm, key = self.arms[name], self.setting_key(k, name)
        draws = range(count_draws(arm, k, self.config))
        if not arm.deterministic:
            return [digest(key, self.seed, draw) for draw in draws]
        return [digest(key, 0 if k == "all" else draw) for draw in draws]

    def choose(self, k: Labels, name: str) -> Setting:
        """The arm's setting, from trials on held-out label people."""
        arm = self.arms[name]
        return arm.choose(make_trials(self.label, k, self.config.seed, arm.trials(k)))

    def measure(self, k: Labels, name: str, setting: Setting, draw: int) -> dict[str, Any]:
        """The record (draw, accuracy, macro_f1, people) of an arm on one draw of labels."""
        rows = np.arange(len(self.label))
        generator = keyed_generator("draw", self.config.seed, draw)
        train = choose_windows(self.label, k, generator, rows)
        given = TrainingRows(train, rows, keyed_seed("fit", self.seed, draw))
        target = np.arange(len(rows), len(rows) + len(self.test))
        predicted = self.arms[name].predict(given, target, setting)
        classes = len(self.test.classes)
        return {
            "draw": draw,
            **score_people(self.test.label, predicted, self.test.person, classes),
        }


def count_draws(arm: Arm, k: Labels, config: FewShotConfig) -> int:
    """The number of draws of k labels a class for an arm."""
    draws = min(config.draws, config.trained_draws) if arm.trains else config.draws
    return min(draws, DRAWS_OF_ALL) if k == "all" else draws


def make_trials(label: LabelledWindows, k: Labels, seed: int, trials: int) -> list[HeldOutTrial]:
    """Trials with k labels a class, each with other held-out label people."""
    made = []
    for trial in range(trials):
        generator = keyed_generator("trial", seed, trial)
        learning, validation = hold_out_people(label, generator)
        train = choose_windows(label, k, generator, learning)
        made.append(
            HeldOutTrial(
                TrainingRows(train, learning, keyed_seed("trial", seed, trial)), validation
            )
        )
    return made


def compute_missing(
    comparison: Comparison,
    all_k: Sequence[Labels],
    finished: FinishedWork,
    jobs: int,
    report: Callable[[str], None],
) -> None:
    """Compute the settings and draws that ``finished`` lacks, and add them to it.

    jobs: processes at once. One goes through k and arms in order. Several begin with what takes
    longest, so that they end at about the same time. Raises what an arm raises.
    """
    with finished.claims() as claims, open_processes(jobs) as processes:
        _Queue(comparison, all_k, finished, claims, jobs == 1, report).run(processes)


class _Queue:
    """The pieces that are to be done, in a heap by their order."""

    def __init__(
        self,
        comparison: Comparison,
        all_k: Sequence[Labels],
        finished: FinishedWork,
        claims: Claims,
        in_order: bool,
        report: Callable[[str], None],
    ) -> None:
        self._comparison = comparison
        self._all_k = list(all_k)
        self._names = list(comparison.arms)
        self._finished = finished
        self._claims = claims
        self._in_order = in_order
        self._report = report
        self._claimed: set[str] = set()
        self._elsewhere: list[Piece] = []  # what another evaluation has claimed
        self._waiting: list[tuple[tuple[int, ...], Piece]] = []
        self._reported: set[tuple[Labels, str]] = set()
        self._awaited: set[str] = set()

    def run(self, processes: Processes) -> None:
        """Do every piece that is not finished."""
        for k in self._all_k:
            for name in self._names:
                if not self._add_pieces(k, name):
                    self._report_finished(k, name)
        while self._waiting or self._elsewhere or processes.busy:
            while self._waiting and not processes.full:
                self._begin(heapq.heappop(self._waiting)[1], processes)
            if not processes.busy:
                self._wait_for_others()
                continue
            piece, item = processes.wait()
            if isinstance(item, Died):
                raise ChildProcessError(
                    f"the process of arm {piece.arm} at k={piece.k} ended early ({item.how}); what "
                    "is finished is kept: start it again, with fewer --jobs"
                )
            if item is ENDED:
                self._end(piece)
            else:
                self._finished.keep(*item)

    def _begin(self, piece: Piece, processes: Processes) -> None:
        """Start what is missing of a piece, unless another evaluation is at it."""
        claim = self._claim_of(piece)
        if claim not in self._claimed:
            if not self._claims.take(claim):
                self._elsewhere.append(piece)
                return
            self._claimed.add(claim)
            self._finished.read()  # what another has done until now
        key = self._comparison.setting_key(piece.k, piece.arm)
        missing = self._missing_draws(piece.k, piece.arm)
        draws = tuple(draw for draw in piece.draws if draw in missing)
        left = piece._replace(chooses=piece.chooses and key not in self._finished, draws=draws)
        if left.chooses or left.draws:
            processes.start(left, self._prepared(left))
        else:
            self._end(piece)

    def _end(self, piece: Piece) -> None:
        """Go on after a piece that is done: others of its arm can be, or it is complete."""
        k, name, chooses, _ = piece
        if not self._missing_draws(k, name):
            self._report_finished(k, name)
        elif chooses:
            self._add_pieces(k, name)
        trains = self._comparison.arms[name].trains
        if trains or not any(self._missing_draws(k, name) for k in self._all_k):
            self._claims.release(self._claim_of(piece))
            self._claimed.discard(self._claim_of(piece))

    def _claim_of(self, piece: Piece) -> str:
        """What is claimed before the piece is begun: itself, or all pieces of its arm."""
        k, name, chooses, draws = piece
        if not self._comparison.arms[name].trains:
            return self._comparison.keys[name]
        if chooses:
            return self._comparison.setting_key(k, name)
        return self._comparison.draw_keys(k, name)[draws[0]]

    def _wait_for_others(self) -> None:
        """Look again after a while whether others have done, or left, what they had claimed."""
        names = {piece.arm for piece in self._elsewhere}
        if names - self._awaited:
            told = ", ".join(name for name in self._names if name in names)
            self._report(f"waiting for another evaluation, which computes {told}")
            self._awaited |= names
        if self._elsewhere:
            time.sleep(LOOK_S)
        for piece in self._elsewhere:
            heapq.heappush(self._waiting, (self._order(piece), piece))
        self._elsewhere = []

    def _prepared(self, piece: Piece) -> Callable[[], Iterator[tuple[str, Any, float]]]:
        """The work of a piece. What all processes need is computed here, once for an arm."""
        started = time.monotonic()
        self._comparison.arms[piece.arm].prepare()
        return partial(self._work, piece, time.monotonic() - started)

    def _work(self, piece: Piece, preparing_s: float) -> Iterator[tuple[str, Any, float]]:
        """Key, value and seconds of each part of a piece.

        preparing_s: seconds that were needed before; they count for the first part.
        """
        k, name, chooses, draws = piece
        key = self._comparison.setting_key(k, name)
        draw_keys = self._comparison.draw_keys(k, name)
        started = time.monotonic() - preparing_s
        setting = self._comparison.choose(k, name) if chooses else self._finished.value(key)
        if chooses:
            yield key, setting, time.monotonic() - started
            started = time.monotonic()
        for draw in draws:
            record = self._comparison.measure(k, name, setting, draw)
            yield draw_keys[draw], record, time.monotonic() - started
            started = time.monotonic()

    def _add_pieces(self, k: Labels, name: str) -> bool:
        """Add the pieces of an arm that can be done now; False where there is none."""
        draws, key = self._missing_draws(k, name), self._comparison.setting_key(k, name)
        trains, chosen = self._comparison.arms[name].trains, key in self._finished
        if trains and chosen:
            setting = self._finished.value(key)
            self._report(f"k={k:<4} {name:<21} chose {format_setting(setting)}")
        if not trains:
            pieces = [Piece(k, name, not chosen, tuple(draws))] if draws or not chosen else []
        elif chosen:
            pieces = [Piece(k, name, False, (draw,)) for draw in draws]
        else:
            pieces = [Piece(k, name, True, ())]
        for piece in pieces:
            heapq.heappush(self._waiting, (self._order(piece), piece))
        return bool(pieces)

    def _missing_draws(self, k: Labels, name: str) -> list[int]:
        """The draws that are not finished; of equal draws only the first."""
        keys = self._comparison.draw_keys(k, name)
        return [
            draw
            for draw, key in enumerate(keys)
            if key not in self._finished and key not in keys[:draw]
        ]

    def _order(self, piece: Piece) -> tuple[int, ...]:
        """The place of a piece in the order: lower ones are done first."""
        k, arm = self._all_k.index(piece.k), self._names.index(piece.arm)
        draw = piece.draws[0] if piece.draws else 0
        if self._in_order:
            return k, arm, draw
        trains = self._comparison.arms[piece.arm].trains
        # Choices first, since draws wait for them; large k, since their trainings are longest.
        return not trains, not piece.chooses, -k, arm, draw

    def _report_finished(self, k: Labels, name: str) -> None:
        if (k, name) in self._reported:  # the last two pieces may end at once
            return
        self._reported.add((k, name))
        key = self._comparison.setting_key(k, name)
        draw_keys = self._comparison.draw_keys(k, name)
        mean = 100 * np.mean([self._finished.value(one)["accuracy"] for one in draw_keys])
        took = self._finished.seconds([key, *draw_keys])
        seconds = "" if took is None else f"  ({took:.1f} s)"
        self._report(f"k={k:<4} {name:<21} accuracy {mean:5.1f} %{seconds}")
