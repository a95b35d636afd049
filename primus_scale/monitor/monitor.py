"""The log of a run: figures and pictures in TensorBoard, a metrics file, a line of progress.

The trainer makes a ``Monitor`` on every rank and calls it at the same steps on all ranks, since
figures are averaged over ranks. Only rank 0 writes. Only steps that are logged wait for the device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from primus_scale.config import TrainConfig
from primus_scale.distributed.collectives import on_first_rank, rank, world_size
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor.figures import (
    StepReport,
    figures_of_all_ranks,
    figures_of_first_rank,
    similarity_pairs,
)
from primus_scale.monitor.log import Log
from primus_scale.monitor.progress import ProgressLine
from primus_scale.monitor.retrieval import describe_retrieval, measure_retrieval
from primus_scale.monitor.summary import summarise_run


class Monitor:
    """Logs a run into ``output/tensorboard`` and ``output/metrics.jsonl``.

    start_step: number of steps already done. What an interrupted run logged after it is dropped,
    so that the curves of a resumed run have no step twice. stream: for the progress line. Where
    rank 0 cannot write, every rank raises OSError naming the file.
    """

    def __init__(
        self,
        output: Path,
        train: TrainConfig,
        *,
        rate_hz: float,
        start_step: int = 0,
        stream: TextIO | None = None,
    ):
        self._train = train
        self._rate_hz = rate_hz
        self._logged_time = time.monotonic()
        self._logged_waited_s = 0.0
        self._windows = 0  # of this rank since the last logged step
        self._log: Log | None = None  # on rank 0
        if rank() == 0:
            self._log = Log(output)
            self._progress = ProgressLine(train.steps, stream or sys.stderr)
        self._on_log(lambda log: log.open(start_step))

    def step(self, step: int, report: StepReport) -> None:
        """Count step number ``step`` (from 1), and log it where ``train.log_every`` says so.

        Every rank calls this at every step: on logged steps the figures are averaged over ranks.
        """
        self._windows += len(report.batch)
        if step == 1 or step % self._train.log_every == 0 or step == self._train.steps:
            self._log_step(step, report)

    def validate(
        self,
        step: int,
        encode: Callable[[torch.Tensor], Embeddings],
        imu: torch.Tensor,
        embeddings: Mapping[str, torch.Tensor],
        present: Mapping[str, torch.Tensor],
    ) -> dict[str, float]:
        """Recall@1 between IMU and each teacher on fixed held-out windows, logged and returned.

        Arguments and ranks as for ``measure_retrieval``. The recall of random answers is logged
        too. Names: ``imu_to_MODALITY`` and ``MODALITY_to_imu`` for each teacher with a head.
        """
        at_once = max(1, self._train.batch // world_size())
        found = measure_retrieval(encode, imu, embeddings, present, at_once)
        figures = {f"retrieval/{name}": recall for name, recall in found.recall.items()}
        figures |= {f"retrieval_chance/{name}": chance for name, chance in found.chance.items()}

        def write(log: Log) -> None:
            log.write(step, figures)
            self._progress.say(f"step {step} | {describe_retrieval(found, len(imu))}")

        if figures:
            self._on_log(write)
        return found.recall

    def pictures(
        self, step: int, imu: tuple[torch.Tensor, torch.Tensor], report: StepReport
    ) -> None:
        """Draw windows with their views, and similarity matrices of the rank's own rows.

        imu: view 0 and view 1, each ``(B, C, T)``, as the encoder took them. Rank 0 draws.
        """

        def draw(log: Log) -> None:
            from primus_scale.monitor import pictures  # here: not all ranks need matplotlib

            log.picture("windows/views", pictures.draw_views(*imu, self._rate_hz), step)
            for name, (rows, columns) in similarity_pairs(report).items():
                picture = pictures.draw_similarity(rows, columns, title=name)
                log.picture(f"similarity/{name}", picture, step)

        self._on_log(draw)

    def summary(self) -> dict[str, Any]:
        """A summary of the whole run, resumed or not, for JSON; empty on ranks other than 0.

        ``losses`` {term: {first, last}}: means over the first and last tenth of the logged steps
        that have the term; for ``total`` of the steps that have all terms. ``windows_per_s``:
        of all ranks together, median over logged intervals. ``retrieval``: of the last validation;
        ``retrieval_chance``: the same of random answers. ``steps``, ``skipped_steps``: counts.
        """
        return summarise_run(self._log.records) if self._log is not None else {}

    def close(self) -> None:
        """End the progress line and close the log; may be called twice."""
        if self._log is not None:
            self._progress.end()
            self._log.close()

    def _log_step(self, step: int, report: StepReport) -> None:
        now = time.monotonic()
        windows_per_s = self._windows * world_size() / max(now - self._logged_time, 1e-9)
        waited_s = report.waited_s - self._logged_waited_s
        shared = figures_of_all_ranks(report, windows_per_s, waited_s)
        self._logged_time, self._windows = now, 0
        self._logged_waited_s = report.waited_s

        def write(log: Log) -> None:
            figures = {**shared, **figures_of_first_rank(report)}
            log.write(step, figures)
            self._progress.show(step, figures)

        self._on_log(write)

    def _on_log(self, write: Callable[[Log], None]) -> None:
        """Call ``write`` with the log, on rank 0; where that fails, every rank raises."""

        def write_on_rank_0() -> None:
            assert self._log is not None
            write(self._log)

        on_first_rank(write_on_rank_0)
