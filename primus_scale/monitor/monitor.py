"""What one sees of a run: TensorBoard scalars and pictures, a metrics file, a progress line.

The trainer builds one ``Monitor`` on every rank and calls it at the same steps everywhere, since
figures are averaged over ranks; only rank 0 writes. Nothing here waits for the device except at
the steps that are logged.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch.utils.tensorboard import SummaryWriter

from primus_scale.config import Config
from primus_scale.distributed.collectives import on_first_rank, rank, sum_over_ranks, world_size
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor import measures, pictures
from primus_scale.monitor.progress import ProgressLine
from primus_scale.monitor.retrieval import describe_retrieval, measure_retrieval
from primus_scale.sample import Batch
from primus_scale.storage.files import explain_failed_write, write_atomically
from primus_scale.support import Exclusion, Neighbours

METRICS_FILE = "metrics.jsonl"
LOG_FOLDER = "tensorboard"
_FIGURES = TypeAdapter(dict[str, bool | int | float])  # of a line of the metrics file
EDGE_SHARE = 10  # the first and the last tenth of the logged steps make a summary's first and last


@dataclass(frozen=True)
class StepReport:
    """What a rank knows of the step it has just done. Tensors need no gradient.

    total, terms: the rank's share of the weighted loss and of each unweighted term; their mean
    over ranks is the loss on the global batch. rows: pairs of the global batch behind each term;
    a term of none is left out of the log. temperatures by family (``mm``, ``ss``).
    views: embeddings of view 0 and view 1 of the rank's rows. waited_s: seconds this rank has
    waited for data since it started. retries: requests to its storage repeated so far.
    support: figures of the support set, by name. skipped_steps: steps left out so far
    because their loss was not finite.
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]
    rows: Mapping[str, torch.Tensor]
    temperatures: Mapping[str, torch.Tensor]
    grad_norm: float
    lr: float
    batch: Batch
    views: tuple[Embeddings, Embeddings]
    neighbours: Neighbours | None
    support: Mapping[str, float]
    waited_s: float
    retries: int
    skipped_steps: int


class Monitor:
    """Logs a run into ``output/tensorboard`` and ``output/metrics.jsonl``.

    ``start_step`` is the number of steps already done: what an interrupted run logged beyond it
    is dropped, so that the curves of a resumed run join. ``stream`` takes the progress line.
    Where rank 0 cannot write, every rank raises OSError naming the file.
    """

    def __init__(
        self,
        config: Config,
        *,
        rate_hz: float,
        start_step: int = 0,
        stream: TextIO | None = None,
    ):
        self._config = config
        self._rate_hz = rate_hz
        self._logged_time = time.monotonic()
        self._logged_waited_s = 0.0
        self._windows: torch.Tensor | None = None  # of this rank since the last logged step
        self._log: _Log | None = None  # on rank 0
        if rank() == 0:
            self._log = _Log(Path(config.output))
            self._progress = ProgressLine(config.train.steps, stream or sys.stderr)
        self._on_log(lambda log: log.open(start_step))

    def step(self, step: int, report: StepReport) -> None:
        """Count step number ``step`` (from 1), and log it where ``train.log_every`` says so.

        Every rank calls this at every step: on logged steps the figures are averaged over ranks.
        """
        valid = report.batch.valid.sum()
        self._windows = valid if self._windows is None else self._windows + valid
        train = self._config.train
        if step == 1 or step % train.log_every == 0 or step == train.steps:
            self._log_step(step, report, self._windows)

    def validate(
        self,
        step: int,
        encode: Callable[[torch.Tensor], Embeddings],
        imu: torch.Tensor,
        embeddings: Mapping[str, torch.Tensor],
        present: Mapping[str, torch.Tensor],
    ) -> dict[str, float]:
        """Recall@1 between IMU and each teacher on fixed held-out windows, logged and returned.

        Arguments and ranks as for ``measure_retrieval``. What chance would give is logged and
        told beside it. Names: ``imu_to_video``, ``video_to_imu``, ``imu_to_text``, ``text_to_imu``.
        """
        at_once = max(1, self._config.train.batch // world_size())
        found = measure_retrieval(encode, imu, embeddings, present, at_once)
        figures = {f"retrieval/{name}": recall for name, recall in found.recall.items()}
        figures |= {f"retrieval_chance/{name}": chance for name, chance in found.chance.items()}

        def write(log: _Log) -> None:
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

        def draw(log: _Log) -> None:
            log.picture("windows/views", pictures.draw_views(*imu, self._rate_hz), step)
            for name, (rows, columns) in _similarity_pairs(report).items():
                picture = pictures.draw_similarity(rows, columns, title=name)
                log.picture(f"similarity/{name}", picture, step)

        self._on_log(draw)

    def summary(self) -> dict[str, Any]:
        """Of the whole run, resumed or not; JSON-ready; rank 0 only (elsewhere empty).

        ``losses`` {term: {first, last}}, means over the first and last tenth of the logged steps
        that have the term, and for ``total`` of those that have all terms; ``windows_per_s``, the
        median over logged intervals of all ranks together; ``retrieval``, the last validation, and
        ``retrieval_chance``, what chance gives there; ``steps``; ``skipped_steps``.
        """
        return summarise(self._log.records) if self._log is not None else {}

    def close(self) -> None:
        """End the progress line and write out what is pending; safe to call twice."""
        if self._log is not None:
            self._progress.end()
            self._log.close()

    def _log_step(self, step: int, report: StepReport, windows: torch.Tensor) -> None:
        now = time.monotonic()
        seconds = max(now - self._logged_time, 1e-9)
        shared = _mean_over_ranks(
            {
                "loss/total": report.total,
                **{f"loss/{name}": x for name, x in report.terms.items() if report.rows[name]},
                **_neighbour_figures(report),
                "speed/windows_per_s": windows / seconds * world_size(),
                "speed/retries": float(report.retries),
                "speed/waited_s": report.waited_s - self._logged_waited_s,
            },
            device=report.batch.imu.device,
        )
        self._logged_time, self._windows = now, None
        self._logged_waited_s = report.waited_s

        def write(log: _Log) -> None:
            figures = {**shared, **_figures_of_rank_0(report)}
            log.write(step, figures)
            self._progress.show(step, figures)

        self._on_log(write)

    def _on_log(self, write: Callable[[_Log], None]) -> None:
        """Call ``write`` with the log, on rank 0; where that fails, every rank raises."""

        def write_on_rank_0() -> None:
            assert self._log is not None
            write(self._log)

        on_first_rank(write_on_rank_0)


def summarise(records: list[dict[str, float]]) -> dict[str, Any]:
    """``Monitor.summary`` from the lines of a metrics file."""
    steps = [record for record in records if "loss/total" in record]
    terms = {name for record in steps for name in record if name.startswith("loss/")}
    losses = {}
    for name in sorted(terms):
        # A total without a term, as those of neighbours are at first, is not like the later ones.
        needed = terms if name == "loss/total" else {name}
        values = [record[name] for record in steps if needed <= record.keys()]
        values = values or [record[name] for record in steps if name in record]
        edge = max(1, len(values) // EDGE_SHARE)
        losses[name.removeprefix("loss/")] = {
            "first": statistics.fmean(values[:edge]),
            "last": statistics.fmean(values[-edge:]),
        }
    speeds = [r["speed/windows_per_s"] for r in steps if "speed/windows_per_s" in r]
    recalls, chances = (
        [found for record in records if (found := _below(prefix, record))]
        for prefix in ("retrieval/", "retrieval_chance/")
    )
    return {
        "losses": losses,
        "windows_per_s": statistics.median(speeds[1:] or speeds or [0.0]),
        "retrieval": recalls[-1] if recalls else {},
        "retrieval_chance": chances[-1] if chances else {},
        "steps": int(records[-1]["step"]) if records else 0,
        "skipped_steps": int(steps[-1].get("optimizer/skipped_steps", 0)) if steps else 0,
    }


def _below(prefix: str, record: Mapping[str, float]) -> dict[str, float]:
    """The figures whose names begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): x for name, x in record.items() if name.startswith(prefix)}


class _Log:
    """TensorBoard and the metrics file of a run, written together; rank 0's."""

    def __init__(self, output: Path):
        self.records: list[dict[str, float]] = []
        self._metrics = output / METRICS_FILE
        self._folder = output / LOG_FOLDER
        self._board: SummaryWriter | None = None

    def open(self, start_step: int) -> None:
        """Take over what was logged up to ``start_step``, and drop the rest."""
        earlier = _read_metrics(self._metrics)
        self.records = [record for record in earlier if record["step"] <= start_step]
        lines = [json.dumps(record) + "\n" for record in self.records]
        write_atomically(self._metrics, "".join(lines))
        with explain_failed_write(self._folder):
            self._board = SummaryWriter(str(self._folder), purge_step=start_step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures; JSON has no word for those that are not finite, TensorBoard has."""
        if not figures:
            return
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.records.append({"step": step, **finite})
        # Opened anew each time: what a file held open could not write fails again at its close.
        with explain_failed_write(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.records[-1]) + "\n")
        with self._on_board() as board:
            for name, value in figures.items():
                board.add_scalar(name, value, step)

    def picture(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Log a picture, uint8 ``(height, width, 3)``."""
        with self._on_board() as board:
            board.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        """End the threads of TensorBoard's writer."""
        if self._board is not None:
            with explain_failed_write(self._folder):
                self._board.close()

    @contextmanager
    def _on_board(self) -> Iterator[SummaryWriter]:
        """The open TensorBoard writer; what the block gives it is on disk after."""
        assert self._board is not None
        with explain_failed_write(self._folder):
            yield self._board
            self._board.flush()


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """Lines of a metrics file; a last line that a kill cut short is dropped.

    So are lines that are damaged, and it is said how many: a run goes on without its log.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()
    records: list[dict[str, float]] = []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    for line in lines:
        with suppress(ValidationError):
            record = _FIGURES.validate_json(line, strict=True)
            records += [record] if isinstance(record.get("step"), int) else []
    if len(records) < len(lines):
        print(
            f"{path}: {len(lines) - len(records)} of {len(lines)} lines are damaged and are dropped"
            "; losses before this start may be missing from the log and the summary",
            file=sys.stderr,
        )
    return records


def _mean_over_ranks(
    figures: Mapping[str, torch.Tensor | float], device: torch.device
) -> dict[str, float]:
    stacked = torch.stack(
        [torch.as_tensor(x, dtype=torch.float64, device=device).detach() for x in figures.values()]
    )
    means = sum_over_ranks(stacked) / world_size()
    return dict(zip(figures, means.tolist(), strict=True))


def _neighbour_figures(report: StepReport) -> dict[str, torch.Tensor]:
    """Score, age (in enqueued entries), and shares from the window's own recording and moment.

    Means over the valid neighbours; 0 where there are none yet.
    """
    found = report.neighbours
    if found is None:
        return {}
    valid = found.valid & report.batch.valid[:, None]
    same_recording = found.recording == report.batch.recording[:, None]
    same_moment = Exclusion(report.batch.origin, report.batch.span_s).covers(found.origin)
    count = valid.sum().clamp(min=1)
    return {
        "neighbours/score": (found.score * valid).sum() / count,
        "neighbours/age": (found.age * valid).sum() / count,
        "neighbours/same_recording": (same_recording & valid).sum() / count,
        "neighbours/same_moment": (same_moment & valid).sum() / count,
        "neighbours/valid": valid.sum() / max(valid.numel(), 1),
    }


def _figures_of_rank_0(report: StepReport) -> dict[str, float]:
    return {
        **{f"temperature/{name}": float(t) for name, t in report.temperatures.items()},
        "optimizer/grad_norm": report.grad_norm,
        "optimizer/lr": report.lr,
        "optimizer/skipped_steps": report.skipped_steps,
        **{f"support/{name}": value for name, value in report.support.items()},
        **_collapse_figures(report),
    }


def _collapse_figures(report: StepReport) -> dict[str, float]:
    """Alignment of the two views, uniformity and effective rank of view 0, on rank 0's rows.

    None of it where a step has failed: a singular value decomposition refuses NaN.
    """
    rows = report.batch.valid
    first, second = (view.ss.detach()[rows].float() for view in report.views)
    if len(first) < 2 or not (first.isfinite().all() and second.isfinite().all()):
        return {}
    return {
        "collapse/alignment": float(measures.alignment(first, second)),
        "collapse/uniformity": float(measures.uniformity(first)),
        "collapse/effective_rank": float(measures.effective_rank(first)),
    }


def _similarity_pairs(report: StepReport) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What similarity matrices compare: the views, and IMU with each teacher present."""
    batch = report.batch
    first, second = report.views
    pairs = {"view0_view1": (first.ss[batch.valid], second.ss[batch.valid])}
    for modality, keys in batch.embeddings.items():
        rows = batch.present[modality] & batch.valid
        if rows.any():
            pairs[f"imu_{modality}"] = (first.mm[modality][rows], keys[rows])
    return pairs
