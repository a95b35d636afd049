"""The training loop: batch -> views -> objective -> step -> monitor -> checkpoint.

Start reading here. Every launcher calls ``pretrain`` on every rank, and ``train`` is the loop.
``train.run`` builds the components of a run (data, engine, support set, checkpoints),
``train.step`` does one step, and ``monitor`` logs it.

Most calls here wait for the other ranks. So an error of one rank is raised on all ranks
(``raise_together``), and all ranks stop after the same step (``_any_rank``).

Steps count from 1 here, in logs and in checkpoints. Step s trains on the global batch s - 1 of
``data.schedule``, which counts from 0, with the learning rate after s - 1 steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from primus_scale.checkpoint.copies import CHECKPOINTS
from primus_scale.checkpoint.manifest import StepCounts
from primus_scale.checkpoint.owner import owned_storage
from primus_scale.config import Config
from primus_scale.counted import counted
from primus_scale.data.reader import BatchLoader
from primus_scale.distributed.collectives import (
    barrier,
    on_all_ranks,
    on_first_rank,
    raise_together,
    sum_over_ranks,
)
from primus_scale.distributed.group import start_runtime, stop_runtime
from primus_scale.distributed.only_run import only_run
from primus_scale.distributed.pulse import pulse
from primus_scale.distributed.watchdog import watched
from primus_scale.encoders.export import ENCODER_FOLDER
from primus_scale.engine.optimizer import learning_rate
from primus_scale.monitor.figures import StepReport
from primus_scale.monitor.log import LOG_FOLDER, METRICS_FILE
from primus_scale.monitor.monitor import Monitor
from primus_scale.monitor.provenance import CONFIG_FILE, ENVIRONMENT_FILE, write_provenance
from primus_scale.sample import Batch
from primus_scale.stopping import REQUEUE, Stop, stop_on_signals
from primus_scale.storage.files import write_atomically
from primus_scale.train.export import export_finished
from primus_scale.train.run import Run, build_run, storage_claimant, storage_folder
from primus_scale.train.step import StepResult, train_step
from primus_scale.train.without_effect import without_effect

SUMMARY_FILE = "train.json"
LOGS = (METRICS_FILE, LOG_FOLDER)
RESULTS = (*LOGS, CONFIG_FILE, ENVIRONMENT_FILE, SUMMARY_FILE, ENCODER_FOLDER)

OnValidation = Callable[[int, dict[str, float]], None]  # called with the step and figures by name


def pretrain(
    config: Config,
    stop: Stop | None = None,
    placement_group: Any = None,
    on_validation: OnValidation | None = None,
    notes: bool = True,
) -> int:
    """Pretrain on this rank, from the newest checkpoint in ``config.output`` if there is one.

    stop: a launcher sets it to end the run after a checkpoint. SIGTERM and Ctrl-C set it too.
    placement_group: see ``build_run``. on_validation: called at every step of validation, on every
    rank with the same figures. Without validation windows it is called too, with the loss only.
    notes: print which settings have no effect in this run (``without_effect``).

    Returns the exit code: 0 when all steps are done, REQUEUE when the run was stopped before,
    INTERRUPTED when Ctrl-C on some rank stopped it. Raises ValueError, FileNotFoundError or
    OSError where configuration, data or output are wrong, and FloatingPointError where the loss
    was not finite in too many steps in a row.
    """
    runtime = start_runtime(config.train)
    try:
        if notes and runtime.rank == 0:
            for note in without_effect(config, runtime.world):
                print(f"note: {note}")
        with (
            watched(config.train.stuck_after_s, REQUEUE),  # ends the run where a rank is stuck
            stop_on_signals(stop or Stop()) as stopping,
            only_run(config.output),  # the lock of the output folder
            # The lock and the owner of the copy, where ``train.storage`` is set.
            owned_storage(storage_folder(config), storage_claimant(config)),
        ):
            with pulse.long_work():  # the watchdog waits longer: this may take minutes
                run = build_run(config, runtime, placement_group)
            with closing(run):
                finished = train(run, stopping, on_validation)
                code = 0 if finished else _report_stop(run, stopping)
            barrier()
    finally:
        stop_runtime(runtime)
    return code


def train(run: Run, stop: Stop, on_validation: OnValidation | None = None) -> bool:
    """The loop; returns True when all steps are done, False when a rank was stopped before."""
    config, settings = run.config, run.config.train
    counts = run.checkpoints.resume(run.engine, run.support)
    start_step = counts.step
    _check_steps(config, start_step)
    if start_step < settings.steps:
        run.checkpoints.check_room(run.support)
    # After ``resume``: if the folder is another run's, that raises, and its files stay as they are.
    on_first_rank(lambda: _begin_output(run, start_step))
    output, rate_hz = Path(config.output), run.data.index.rate_hz
    monitor = Monitor(output, settings, rate_hz=rate_hz, start_step=start_step)

    with closing(monitor), run.batches(start_step) as loader:
        inputs = run.inputs(loader)
        for step in range(start_step + 1, settings.steps + 1):
            batch, pending, error = _next_input(inputs, step)
            # One step is done first, so that a run which is stopped at every start still advances.
            # Ctrl-C does not wait for that step.
            stopped = stop.is_set() and (counts.step > start_step or stop.interrupted)
            if _any_rank(stopped or error is not None, run):
                _save(run, counts)
                raise_together(error)
                return False
            views = run.views(batch, step)
            lr = learning_rate(step - 1, config.optimizer, settings.steps)
            result = train_step(
                run.engine, views, batch, run.support, config.objective, lr, pending
            )
            counts = _count(counts, result, settings.max_nonfinite)
            last = step == settings.steps

            report = _report(run, result, batch, counts, lr, loader)
            monitor.step(step, report)
            if last or step % settings.validate_every == 0:
                found = _validate(run, monitor, step)
                if on_validation is not None:
                    loss = float(sum_over_ranks(report.total)) / run.runtime.world
                    on_validation(step, {"loss": loss, **found})
            if step % settings.pictures_every == 0:
                monitor.pictures(step, views, report)

            if last or step % settings.checkpoint_every == 0:
                _save(run, counts)
    # Not ``on_first_rank``: the other ranks would time out while the first one encodes windows for
    # the calibration.
    is_first = run.runtime.rank == 0
    on_all_ranks(lambda: _finish(run, monitor) if is_first else None)
    _copy_results(run)
    return True


def _check_steps(config: Config, done: int) -> None:
    """ValueError where the checkpoint has more steps than the configuration asks for."""
    if done > config.train.steps:
        raise ValueError(
            f"{config.output} has {counted(done, 'step')} behind it, and train.steps is "
            f"{config.train.steps}; set train.steps to {done} or more to go on, or choose "
            "another output"
        )


def _begin_output(run: Run, start_step: int) -> None:
    """Write configuration and versions; fetch earlier logs from storage if they are not here."""
    output = Path(run.config.output)
    if run.storage is not None and start_step and not (output / METRICS_FILE).exists():
        run.storage.fetch_results(output, LOGS)
    write_provenance(run.config, run.runtime.world)


def _next_input(inputs: Iterator[Any], step: int) -> tuple[Any, Any, Exception | None]:
    """``(batch, pending searches, None)`` from ``Run.inputs``; ``(None, None, error)`` if it fails.

    An error is returned, not raised: if one rank ended alone, the others would wait for it.
    """
    pulse.step = step
    pulse.at("waiting for data")
    try:
        return *next(inputs), None
    except Exception as error:
        return None, None, error


def _any_rank(flag: bool, run: Run) -> bool:
    """Whether ``flag`` is set on some rank. All ranks must stop after the same step."""
    return bool(sum_over_ranks(torch.tensor(float(flag), device=run.runtime.device)))


def _save(run: Run, counts: StepCounts) -> None:
    """Write a checkpoint, and copy it where ``train.storage`` is set."""
    run.checkpoints.save(run.engine, run.support, counts)
    # Logs are copied before the checkpoint. A run that continues drops the log lines after its
    # checkpoint. It could not restore lines before it that are missing.
    _copy_results(run)
    run.checkpoints.copy()


def _copy_results(run: Run) -> None:
    """Copy logs, encoder and summary to ``train.storage``, where that is set."""
    storage, output = run.storage, Path(run.config.output)
    if storage is not None:
        is_first = run.runtime.rank == 0
        on_all_ranks(lambda: storage.put_results(output, RESULTS) if is_first else None)


def _count(counts: StepCounts, result: StepResult, max_in_a_row: int) -> StepCounts:
    """The counts after one more step; FloatingPointError after too many skipped steps in a row."""
    if result.finite:
        return StepCounts(counts.step + 1, counts.skipped)
    counts = StepCounts(counts.step + 1, counts.skipped + 1, counts.skipped_in_a_row + 1)
    if counts.skipped_in_a_row > max_in_a_row:
        raise FloatingPointError(
            f"the loss was not finite at {counted(counts.skipped_in_a_row, 'step')} in a row, up "
            f"to step {counts.step} (train.max_nonfinite={max_in_a_row}); lower optimizer.lr, set "
            "optimizer.clip, or try train.precision=fp32"
        )
    return counts


def _report(
    run: Run, result: StepResult, batch: Batch, counts: StepCounts, lr: float, loader: BatchLoader
) -> StepReport:
    """What the monitor logs of a step."""
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
        skipped_steps=counts.skipped,
    )


def _validate(run: Run, monitor: Monitor, step: int) -> dict[str, float]:
    """Log retrieval on the validation windows, where the run has some; returns its figures."""
    held_out = run.validation
    if held_out is None:
        return {}
    return monitor.validate(
        step, run.engine.embed, held_out.imu, held_out.embeddings, held_out.present
    )


def _finish(run: Run, monitor: Monitor) -> None:
    """Write the encoder and the summary of the run into the output folder."""
    output = Path(run.config.output)
    export_finished(output, output / ENCODER_FOLDER, run.config, run.data, run.runtime.device)
    write_atomically(output / SUMMARY_FILE, json.dumps(monitor.summary(), indent=1) + "\n")
    print(f"encoder  {output / ENCODER_FOLDER}  (after {counted(run.config.train.steps, 'step')})")


def _report_stop(run: Run, stop: Stop) -> int:
    """Print how to continue a stopped run; returns its exit code, the same on all ranks."""
    if _any_rank(stop.interrupted, run):
        stop.set(interrupted=True)
    if run.runtime.rank == 0:
        checkpoints = list((Path(run.config.output) / CHECKPOINTS).glob("step-*"))
        kept = "what is done is in its checkpoint" if checkpoints else "before its first step"
        print(f"{run.config.output}: stopped, {kept}; the same command goes on", file=sys.stderr)
    return stop.exit_code
