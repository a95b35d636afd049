"""The log of a run: TensorBoard and a file of figures, a line for each logged step."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch.utils.tensorboard import SummaryWriter

from primus_scale.storage.files import explain_failed_write, write_atomically

METRICS_FILE = "metrics.jsonl"
LOG_FOLDER = "tensorboard"
_FIGURES = TypeAdapter(dict[str, bool | int | float])  # of a line of the metrics file


class Log:
    """TensorBoard and the metrics file of a run; rank 0 writes them."""

    def __init__(self, output: Path):
        self.records: list[dict[str, float]] = []
        self._metrics = output / METRICS_FILE
        self._folder = output / LOG_FOLDER
        self._writer: SummaryWriter | None = None

    def open(self, start_step: int) -> None:
        """Keep what was logged up to ``start_step``, and drop the rest."""
        earlier = read_metrics(self._metrics)
        self.records = [record for record in earlier if record["step"] <= start_step]
        lines = [json.dumps(record) + "\n" for record in self.records]
        write_atomically(self._metrics, "".join(lines))
        with explain_failed_write(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=start_step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures; those that are not finite go to TensorBoard only: JSON cannot hold them."""
        if not figures:
            return
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.records.append({"step": step, **finite})
        # Opened each time: an open file would fail again at its close after a write that failed.
        with explain_failed_write(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.records[-1]) + "\n")
        with self._writing() as writer:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

    def picture(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Log a picture, uint8 ``(height, width, 3)``."""
        with self._writing() as writer:
            writer.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        """End the threads of TensorBoard's writer."""
        if self._writer is not None:
            with explain_failed_write(self._folder):
                self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[SummaryWriter]:
        """The open TensorBoard writer; it is flushed at the end of the block."""
        assert self._writer is not None
        with explain_failed_write(self._folder):
            yield self._writer
            self._writer.flush()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Records of a metrics file, without an incomplete last line, which a kill may leave.

    Damaged lines are dropped too, with a warning of their number: the run can continue without
    them.
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
