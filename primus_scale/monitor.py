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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.utils.tensorboard import SummaryWriter

from primus_scale import measures, pictures
from primus_scale.collectives import rank, sum_over_ranks, world_size
from primus_scale.config import Config
from primus_scale.encoders.base import Embeddings
from primus_scale.sample import TEACHER_MODALITIES, Batch
from primus_scale.support import Neighbours

METRICS_FILE = "metrics.jsonl"
LOG_FOLDER = "tensorboard"
SAME_DIRECTION = 1e-5  # of 1 - cosine
EDGE_SHARE = 10  # the first and the last tenth of the logged steps make a summary's first and last


@dataclass(frozen=True)
class StepReport:
    """What a rank knows of the step it has just done. Tensors need no gradient.

    total, terms: the rank's share of the weighted loss and of each unweighted term; their mean
    over ranks is the loss on the global batch. temperatures by family (``mm``, ``ss``).
    views: embeddings of view 0 and view 1 of the rank's rows. waited_s: seconds this rank has
    waited for data since it started. support_fill: entries the support set holds.
    skipped_steps: steps left out so far because their loss was not finite.
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]
    temperatures: Mapping[str, torch.Tensor]
    grad_norm: float
    lr: float
    batch: Batch
    views: tuple[Embeddings, Embeddings]
    neighbours: Neighbours | None
    support_fill: int
    waited_s: float
    skipped_steps: int


class Monitor:
    """Logs a run into ``output/tensorboard`` and ``output/metrics.jsonl``.

    ``start_step`` is the number of steps already done: what an interrupted run logged beyond it
    is dropped, so that the curves of a resumed run join. ``stream`` takes the progress line.
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
            self._log = _Log(Path(config.output), start_step)
            self._progress = ProgressLine(config.train.steps, stream or sys.stderr)

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

        imu ``(V, C, T)``; embeddings ``(V, D)`` and present ``(V,)`` bool by modality. ``encode``
        maps ``(B, C, T)`` to Embeddings. Every rank calls this with the same windows, because a
        model cut over ranks (ZeRO stage 3) computes on all ranks or none; all get the same answer.
        Windows of equal embeddings (the same narration) are as good an answer as one another.
        Names: ``imu_to_video``, ``video_to_imu``, ``imu_to_text``, ``text_to_imu``.
        """
        chunk = self._config.train.batch
        with torch.no_grad():
            parts = [encode(imu[i : i + chunk]).mm for i in range(0, len(imu), chunk)]
        recalls: dict[str, float] = {}
        for modality in (name for name in TEACHER_MODALITIES if name in embeddings):
            rows = present[modality]
            if int(rows.sum()) < 2:
                continue  # a lone window finds itself
            ours = torch.cat([part[modality] for part in parts])[rows].float()
            theirs = embeddings[modality][rows].to(ours)
            same = _equal_rows(theirs)
            recalls[f"imu_to_{modality}"] = float(measures.recall_at_1(ours, theirs, same))
            recalls[f"{modality}_to_imu"] = float(measures.recall_at_1(theirs, ours, same))
        if self._log is not None:
            self._log.write(step, {f"retrieval/{name}": x for name, x in recalls.items()})
        return recalls

    def pictures(
        self, step: int, imu: tuple[torch.Tensor, torch.Tensor], report: StepReport
    ) -> None:
        """Draw windows with their views, and similarity matrices of the rank's own rows.

        imu: view 0 and view 1, each ``(B, C, T)``, as the encoder took them. Rank 0 draws.
        """
        if self._log is None:
            return
        self._log.picture("windows/views", pictures.draw_views(*imu, self._rate_hz), step)
        for name, (rows, columns) in _similarity_pairs(report).items():
            picture = pictures.draw_similarity(rows, columns, title=name)
            self._log.picture(f"similarity/{name}", picture, step)

    def summary(self) -> dict[str, Any]:
        """Of the whole run, resumed or not; JSON-ready; rank 0 only (elsewhere empty).

        ``losses`` {term: {first, last}}, means over the first and last tenth of the logged steps;
        ``windows_per_s``, the median over logged intervals of all ranks together; ``retrieval``,
        the last validation; ``steps``; ``skipped_steps``.
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
                **{f"loss/{name}": value for name, value in report.terms.items()},
                **_neighbour_figures(report),
                "speed/windows_per_s": windows / seconds * world_size(),
                "speed/waited_s": report.waited_s - self._logged_waited_s,
            },
            device=report.batch.imu.device,
        )
        self._logged_time, self._windows = now, None
        self._logged_waited_s = report.waited_s
        if self._log is not None:
            own = {
                **{f"temperature/{name}": float(t) for name, t in report.temperatures.items()},
                "optimizer/grad_norm": report.grad_norm,
                "optimizer/lr": report.lr,
                "optimizer/skipped_steps": report.skipped_steps,
                "support/fill": report.support_fill,
                **_collapse_figures(report),
            }
            self._log.write(step, {**shared, **own})
            self._progress.show(step, {**shared, **own})


class ProgressLine:
    """One line that tells where a run is: rewritten on a terminal, repeated in a log file."""

    def __init__(self, total_steps: int, stream: TextIO):
        self._total_steps = total_steps
        self._stream = stream
        self._started: tuple[int, float] | None = None
        self._open = False

    def show(self, step: int, figures: Mapping[str, float]) -> None:
        """Show ``step`` with its loss terms, windows/s and the time left."""
        now = time.monotonic()
        if self._started is None:
            self._started = step, now  # the first step warms up, and tells nothing of the rest
        first_step, first_time = self._started
        done = step - first_step
        left = (now - first_time) / done * (self._total_steps - step) if done else None
        terms = " ".join(
            f"{name.removeprefix('loss/')} {value:.3f}"
            for name, value in figures.items()
            if name.startswith("loss/")
        )
        speed = figures.get("speed/windows_per_s", 0.0)
        line = (
            f"step {step}/{self._total_steps} | {terms} | {speed:,.0f} windows/s"
            f" | {'' if left is None else format_seconds(left) + ' left'}"
        )
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{line}")
            self._open = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line standing, and go to a new one."""
        if self._open:
            self._stream.write("\n")
            self._open = False


def format_seconds(seconds: float) -> str:
    """``1h 02m``, ``3m 20s`` or ``12s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def summarise(records: list[dict[str, float]]) -> dict[str, Any]:
    """``Monitor.summary`` from the lines of a metrics file."""
    steps = [record for record in records if "loss/total" in record]
    edge = max(1, len(steps) // EDGE_SHARE)
    losses = {}
    for name in sorted({name for record in steps for name in record if name.startswith("loss/")}):
        values = [record[name] for record in steps if name in record]
        losses[name.removeprefix("loss/")] = {
            "first": statistics.fmean(values[:edge]),
            "last": statistics.fmean(values[-edge:]),
        }
    speeds = [record["speed/windows_per_s"] for record in steps]
    validations = [
        {name.removeprefix("retrieval/"): x for name, x in record.items() if name != "step"}
        for record in records
        if any(name.startswith("retrieval/") for name in record)
    ]
    return {
        "losses": losses,
        "windows_per_s": statistics.median(speeds[1:] or speeds or [0.0]),
        "retrieval": validations[-1] if validations else {},
        "steps": int(records[-1]["step"]) if records else 0,
        "skipped_steps": int(steps[-1].get("optimizer/skipped_steps", 0)) if steps else 0,
    }


class _Log:
    """TensorBoard and the metrics file of a run, written together; rank 0's."""

    def __init__(self, output: Path, start_step: int):
        output.mkdir(parents=True, exist_ok=True)
        path = output / METRICS_FILE
        self.records = [record for record in _read_metrics(path) if record["step"] <= start_step]
        self._file = path.open("w", encoding="utf-8")
        for record in self.records:
            self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._board = SummaryWriter(str(output / LOG_FOLDER), purge_step=start_step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures; JSON has no word for those that are not finite, TensorBoard has."""
        if not figures:
            return
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.records.append({"step": step, **finite})
        self._file.write(json.dumps(self.records[-1]) + "\n")
        self._file.flush()
        self._board.flush()

    def picture(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Log a picture, uint8 ``(height, width, 3)``."""
        self._board.add_image(tag, picture, step, dataformats="HWC")
        self._board.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """Lines of a metrics file; a last line that a kill cut short is dropped."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _mean_over_ranks(
    figures: Mapping[str, torch.Tensor | float], device: torch.device
) -> dict[str, float]:
    stacked = torch.stack(
        [torch.as_tensor(x, dtype=torch.float64, device=device).detach() for x in figures.values()]
    )
    means = sum_over_ranks(stacked) / world_size()
    return dict(zip(figures, means.tolist(), strict=True))


def _neighbour_figures(report: StepReport) -> dict[str, torch.Tensor]:
    """Score, age (in enqueued entries) and share of neighbours from the window's own recording.

    Means over the valid neighbours; 0 where there are none yet.
    """
    found = report.neighbours
    if found is None:
        return {}
    valid = found.valid & report.batch.valid[:, None]
    same_recording = found.recording == report.batch.recording[:, None]
    count = valid.sum().clamp(min=1)
    return {
        "neighbours/score": (found.score * valid).sum() / count,
        "neighbours/age": (found.age * valid).sum() / count,
        "neighbours/same_recording": (same_recording & valid).sum() / count,
        "neighbours/valid": valid.sum() / max(valid.numel(), 1),
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


def _equal_rows(embeddings: torch.Tensor) -> torch.Tensor:
    """``(V, V)`` bool: rows that point the same way, up to rounding."""
    unit = normalize(embeddings, dim=1)
    return unit @ unit.T > 1 - SAME_DIRECTION


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
