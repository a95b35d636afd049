"""The training loop: batch -> views -> objective -> step -> monitor -> checkpoint.

Start reading here. ``pretrain`` is what every launcher calls on every rank; ``run`` builds the
parts, ``step`` holds one step, ``monitor`` what is logged of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from primus_scale.checkpoint.copies import CHECKPOINTS
from primus_scale.checkpoint.folder import newest_encoder
from primus_scale.checkpoint.manifest import StepCounts
from primus_scale.checkpoint.owner import owned_storage
from primus_scale.config import Config
from primus_scale.data.reader import BatchLoader
from primus_scale.distributed.collectives import (
    barrier,
    on_all_ranks,
    on_first_rank,
    raise_together,
    sum_over_ranks,
)
from primus_scale.distributed.group import start_runtime, stop_runtime
from primus_scale.distributed.pulse import pulse
from primus_scale.distributed.run_lock import only_run
from primus_scale.distributed.watchdog import watched
from primus_scale.encoders.export import load_encoder, read_card, save_encoder
from primus_scale.engine.optimizer import learning_rate
from primus_scale.monitor.figures import StepReport
from primus_scale.monitor.log import LOG_FOLDER, METRICS_FILE
from primus_scale.monitor.monitor import Monitor
from primus_scale.monitor.provenance import CONFIG_FILE, ENVIRONMENT_FILE, write_provenance
from primus_scale.sample import Batch
from primus_scale.stopping import REQUEUE, Stop, stop_on_signals
from primus_scale.storage.files import write_atomically
from primus_scale.train.run import Run, build_run, storage_claimant, storage_folder
from primus_scale.train.step import StepResult, train_step

SUMMARY_FILE = "train.json"
ENCODER_FOLDER = "encoder"
LOGS = (METRICS_FILE, LOG_FOLDER)
RESULTS = (*LOGS, CONFIG_FILE, ENVIRONMENT_FILE, SUMMARY_FILE, ENCODER_FOLDER)


def pretrain(config: Config, stop: Stop | None = None, placement: Any = None) -> int:
    """Pretrain on this rank, from the newest checkpoint in ``config.output`` if there is one.

    stop: set by the launcher to end the run after a checkpoint; so do SIGTERM and Ctrl-C.
    placement: see ``build_run``.
    Returns the exit code: 0 when all steps are done, REQUEUE when stopped before, INTERRUPTED
    when Ctrl-C on some rank stopped it. Raises
    ValueError, FileNotFoundError or OSError for what is wrong with configuration, data or output,
    and FloatingPointError where the loss stays not finite.
    """
    runtime = start_runtime(config.train)
    try:
        with (
            watched(config.train.stuck_after_s, REQUEUE),
            stop_on_signals(stop or Stop()) as stopping,
            only_run(config.output),
            owned_storage(storage_folder(config), storage_claimant(config)),
        ):
            with pulse.long_work():
                run = build_run(config, runtime, placement)
            with closing(run):
                finished = train(run, stopping)
                code = 0 if finished else _stopped(run, stopping)
            barrier()
    finally:
        stop_runtime(runtime)
    return code


def train(run: Run, stop: Stop) -> bool:
    """The loop. Returns whether all steps are done, rather than ``stop`` was set on some rank."""
    config, train = run.config, run.config.train
    progress = run.checkpoints.resume(run.engine, run.support)
    begun = progress.step
    if progress.step < train.steps:
        run.checkpoints.check_room(run.support)
    # Only now: a folder of another run has been refused, and its records are as they were.
    on_first_rank(lambda: _begin_records(run, progress))
    output, rate_hz = Path(config.output), run.data.index.rate_hz
    monitor = Monitor(output, train, rate_hz=rate_hz, start_step=begun)

    with closing(monitor), run.batches(progress.step) as loader:
        inputs = run.inputs(loader)
        for step in range(progress.step + 1, train.steps + 1):
            given, error = _next_input(inputs, step)
            # It does at least one step, or would never get further; Ctrl-C need not wait for it.
            stopped = stop.is_set() and (progress.step > begun or stop.interrupted)
            if _on_any_rank(stopped or error is not None, run):
                _save(run, progress)
                raise_together(error)
                return False
            batch, asked = given
            views = run.views(batch, step)
            lr = learning_rate(step - 1, config.optimizer, train.steps)
            result = train_step(run.engine, views, batch, run.support, config.objective, lr, asked)
            progress = _count(progress, result, train.max_nonfinite)
            last = step == train.steps

            report = _report(run, result, batch, progress, lr, loader)
            monitor.step(step, report)
            if last or step % train.validate_every == 0:
                _validate(run, monitor, step)
            if step % train.pictures_every == 0:
                monitor.pictures(step, views, report)

            if last or step % train.checkpoint_every == 0:
                _save(run, progress)
    on_first_rank(lambda: _finish(output, monitor))
    _copy_results(run)
    return True


def export_run(run_dir: str | Path, out: str | Path) -> Path:
    """Write the encoder of a run's newest whole checkpoint to the folder ``out``; returns it.

    FileNotFoundError where the run has no checkpoint, ValueError where all are damaged, OSError
    where ``out`` cannot be written.
    """
    source = newest_encoder(run_dir)
    save_encoder(load_encoder(source), out, read_card(source))
    return Path(out)


def _stopped(run: Run, stop: Stop) -> int:
    """The exit code of a run that was stopped, the same on all ranks, after a line how to go on."""
    if _on_any_rank(stop.interrupted, run):
        stop.set(interrupted=True)
    if run.runtime.rank == 0:
        made = list((Path(run.config.output) / CHECKPOINTS).glob("step-*"))
        kept = "what is done is in its checkpoint" if made else "before its first step"
        print(f"{run.config.output}: stopped, {kept}; the same command goes on", file=sys.stderr)
    return stop.exit_code


def _next_input(inputs: Iterator[Any], step: int) -> tuple[Any, Exception | None]:
    """What comes next, for ``step``, or else what went wrong with it on this rank."""
    pulse.step = step
    pulse.at("waiting for data")
    try:
        return next(inputs), None
    except Exception as error:  # of any kind: a rank that ends alone leaves the others waiting
        return None, error


def _save(run: Run, progress: StepCounts) -> None:
    """Write a checkpoint; then copy it, where ``train.storage`` is set."""
    run.checkpoints.save(run.engine, run.support, progress)
    _copy_results(run)  # before it: of logs that go on beyond a checkpoint the end is dropped
    run.checkpoints.copy()


def _count(progress: StepCounts, result: StepResult, max_in_a_row: int) -> StepCounts:
    if result.finite:
        return StepCounts(progress.step + 1, progress.skipped)
    progress = StepCounts(progress.step + 1, progress.skipped + 1, progress.skipped_in_a_row + 1)
    if progress.skipped_in_a_row > max_in_a_row:
        raise FloatingPointError(
            f"the loss was not finite at {progress.skipped_in_a_row} steps in a row, up to step "
            f"{progress.step} (train.max_nonfinite={max_in_a_row}); lower optimizer.lr, set "
            "optimizer.clip, or try train.precision=fp32"
        )
    return progress


def _report(
    run: Run, result: StepResult, batch: Batch, progress: StepCounts, lr: float, loader: BatchLoader
) -> StepReport:
    return StepReport(
        total=result.loss.total.detach(),
        terms=result.loss.terms,
        rows=result.loss.rows,
        temperatures=result.temperatures,
        grad_norm=result.grad_norm,
        lr=lr,
        batch=batch,
        views=result.views,
        neighbours=result.neighbours,
        support=run.support.figures() if run.support is not None else {},
        waited_s=loader.waited_s,
        retries=loader.retries,
        skipped_steps=progress.skipped,
    )


def _validate(run: Run, monitor: Monitor, step: int) -> None:
    held_out = run.validation
    if held_out is not None:
        monitor.validate(
            step, run.engine.embed, held_out.imu, held_out.embeddings, held_out.present
        )


def _begin_records(run: Run, progress: StepCounts) -> None:
    """Write down what the run is; fetch the logs that it continues, where the output lacks them."""
    output = Path(run.config.output)
    if run.storage is not None and progress.step and not (output / METRICS_FILE).exists():
        run.storage.fetch_results(output, LOGS)
    write_provenance(run.config, run.runtime.world)


def _copy_results(run: Run) -> None:
    """Copy all but the checkpoints to ``train.storage``, too."""
    storage, output = run.storage, Path(run.config.output)
    if storage is not None:
        copies = run.runtime.rank == 0
        on_all_ranks(lambda: storage.put_results(output, RESULTS) if copies else None)


def _finish(output: Path, monitor: Monitor) -> None:
    """Leave the encoder and the run's figures in the output folder."""
    export_run(output, output / ENCODER_FOLDER)
    write_atomically(output / SUMMARY_FILE, json.dumps(monitor.summary(), indent=1) + "\n")


def _on_any_rank(flag: bool, run: Run) -> bool:
    """All ranks must stop after the same step, whichever of them was told to."""
    return bool(sum_over_ranks(torch.tensor(float(flag), device=run.runtime.device)))
