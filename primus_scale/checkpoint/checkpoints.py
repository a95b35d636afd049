"""Checkpoints: all that a run needs to continue, written whole or not at all.

    OUTPUT/checkpoints/step-00000250/
        manifest.json          progress, identity of the run, size and sha256 of every file
        state/                 DeepSpeed's files: weights and optimiser, in the pieces of its ranks
        support/               the support set, in the pieces of its parts
        encoder/               the encoder by itself, exported

A checkpoint is written under a hidden name. When every file and the manifest are on disk, it is
renamed and so becomes *current*. A kill at any moment leaves the checkpoint before it. Random
generators, learning rate and order of data are not saved, since each is a pure function of the
seed and the step.

The same number of ranks continues bit for bit, if the support set is exact and in the process or
in a synchronous service. For another number of ranks the state is converted (``zero_state``).
Machines need not share the folder where ``train.storage`` is set (``checkpoint.folder``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from primus_scale.checkpoint.copies import RunStorage
from primus_scale.checkpoint.folder import CheckpointFolder, partial_of
from primus_scale.checkpoint.manifest import (
    ENCODER,
    SUPPORT,
    StepCounts,
    checkpoint_name,
    file_entry,
    flush,
)
from primus_scale.checkpoint.room import expected_bytes
from primus_scale.config import TrainConfig
from primus_scale.counted import counted
from primus_scale.distributed.collectives import barrier, on_all_ranks
from primus_scale.distributed.group import Runtime
from primus_scale.encoders import ImuEncoder
from primus_scale.encoders.card import EncoderCard
from primus_scale.encoders.export import save_encoder
from primus_scale.engine.engine import Engine
from primus_scale.engine.zero_state import (
    STATE,
    StateFiles,
    convert_state,
    load_converted,
    load_state,
    save_state,
)
from primus_scale.storage.foreign import decoding
from primus_scale.support import SupportSet

# OSError, and the errors that torch and safetensors raise for it; ValueError is raised for an
# encoder that is not finite.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError, ValueError)


class Checkpoints:
    """The checkpoints of one run. Every rank calls the same methods at the same time.

    train: how many checkpoints are kept, and the ZeRO stage. identity: see ``run_identity``.
    encoder: a copy on the CPU, which is loaded with the current weights and written to
    ``encoder/`` with ``card``. storage: where checkpoints are copied to, or None.
    """

    def __init__(
        self,
        output: str,
        train: TrainConfig,
        runtime: Runtime,
        identity: Mapping[str, Any],
        encoder: ImuEncoder,
        card: EncoderCard,
        storage: RunStorage | None,
    ) -> None:
        self._folder = CheckpointFolder(output, storage, train.keep_checkpoints)
        self._zero_stage = train.zero_stage
        self._runtime = runtime
        self._identity = identity
        self._encoder = encoder
        self._card = card
        self._saved_step = 0  # a fresh run has nothing to save
        self._uncopied: tuple[Path, dict[str, Any]] | None = None  # and names of this rank's files

    def check_room(self, support: SupportSet | None) -> None:
        """OSError where a checkpoint will not fit into the output, or into local storage."""
        held = support.spec.memory if support is not None else 0
        parameters = sum(parameter.numel() for parameter in self._encoder.parameters())
        sizes = expected_bytes(parameters, self._zero_stage, held)
        leads = self._folder.leads
        on_all_ranks(lambda: self._folder.check_room(sizes) if leads else None)

    def save(self, engine: Engine, support: SupportSet | None, progress: StepCounts) -> None:
        """Write a checkpoint, make it current, and remove all but the last few.

        OSError naming the folder where it cannot be written; the one before stays current.
        """
        if progress.step == self._saved_step:
            return
        final = self._folder.path / checkpoint_name(progress)
        partial = partial_of(final)
        if support is not None:
            support.flush()
        weights = engine.encoder_state()
        self._write(final, lambda: self._begin(partial, weights, support))
        state = save_state(engine, partial)
        written = self._write(final, lambda: self._finish_files(partial, state))
        manifest = {
            "progress": asdict(progress),
            "world": self._runtime.world,
            "identity": self._identity,
            "files": {name: entry for files in written for name, entry in files.items()},
        }
        leads = self._folder.leads
        self._write(final, lambda: self._folder.make_current(final, manifest) if leads else None)
        if support is not None:
            support.saved(final / SUPPORT)
        self._saved_step = progress.step
        self._uncopied = final, written[self._runtime.rank]

    def copy(self) -> None:
        """Copy the newest checkpoint to ``train.storage``, where that is set.

        OSError where that fails; ConnectionError or TimeoutError where storage does not answer.
        """
        if self._uncopied is not None:
            self._folder.copy(*self._uncopied)
            self._uncopied = None

    def resume(self, engine: Engine, support: SupportSet | None) -> StepCounts:
        """Restore the newest whole checkpoint; ``StepCounts()`` where there is no checkpoint.

        A damaged checkpoint is skipped with a warning, and one of another number of ranks is
        converted. ValueError where all are damaged, where the newest whole one is of another run
        (naming the fields), or where ranks have different folders and no common storage.
        """
        newest = self._folder.find_whole()
        if newest is None:
            return StepCounts()
        folder, manifest = newest
        self._check_fits(folder, manifest)
        advice = "remove it to go on from the one before"
        with decoding(str(folder), STATE, advice=advice):
            if self._zero_stage > 0 and manifest["world"] != self._runtime.world:
                self._load_converted(engine, folder, manifest["world"])
            else:
                load_state(engine, folder)
        with decoding(str(folder), SUPPORT, advice=advice):
            if support is not None:
                support.load(folder / SUPPORT)
        progress = StepCounts(**manifest["progress"])
        self._saved_step = progress.step
        return progress

    def _begin(
        self,
        partial: Path,
        weights: dict[str, torch.Tensor],
        support: SupportSet | None,
    ) -> None:
        if self._folder.leads:
            self._folder.clear()
            (partial / STATE).mkdir(parents=True)
        if self._runtime.rank > 0:
            return
        self._encoder.load_state_dict(weights)
        save_encoder(self._encoder, partial / ENCODER, self._card)
        if support is not None:
            (partial / SUPPORT).mkdir()
            support.save(partial / SUPPORT)

    def _finish_files(self, partial: Path, state: StateFiles) -> dict[str, Any]:
        """Flush the files of this rank to disk; their sizes and hashes by name."""
        if state.error is not None:
            raise state.error
        paths = list(state.written)
        if self._runtime.rank == 0:
            common = (*(partial / ENCODER).rglob("*"), *(partial / SUPPORT).rglob("*"))
            paths += [path for path in common if path.is_file()]
        flush(paths)
        return {path.relative_to(partial).as_posix(): file_entry(path) for path in sorted(paths)}

    def _write(self, final: Path, write: Callable[[], Any]) -> list[Any]:
        """The values of ``write()`` on all ranks; all raise OSError where it fails on one."""
        before = self._folder.newest()
        kept = f"{before} stays current" if before else "there is none before it"

        def explain() -> Any:
            try:
                return write()
            except WRITE_ERRORS as error:
                raise OSError(
                    f"checkpoint {final} could not be written ({error}); {kept}. Free some space "
                    "or choose another output, and start again"
                ) from error

        try:
            return on_all_ranks(explain)
        except OSError:
            self._folder.clear()  # a full disk then has space for the end of the logs
            raise

    def _load_converted(self, engine: Engine, folder: Path, world: int) -> None:
        leads = self._folder.leads
        converted = folder.with_name(f".{folder.name}.converted")
        if self._runtime.rank == 0:
            saved = f"{folder} was saved by {counted(world, 'rank')}"
            print(f"{saved}; converting it for {self._runtime.world}")
        on_all_ranks(lambda: _convert(folder, converted) if leads else None)
        load_converted(engine, converted)
        barrier()  # until all have read it
        if leads:
            shutil.rmtree(converted)

    def _check_fits(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        theirs, ours = manifest["identity"], self._identity
        differing = [
            f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here"
            for key in sorted(theirs | ours)
            if theirs.get(key) != ours.get(key)
        ]
        if differing:
            raise ValueError(
                f"{folder} is a checkpoint of another run: {'; '.join(differing)}. Set the old "
                "values to continue it, or choose another output"
            )


def _convert(folder: Path, converted: Path) -> None:
    shutil.rmtree(converted, ignore_errors=True)
    try:
        convert_state(folder, converted)
    except WRITE_ERRORS as error:
        shutil.rmtree(converted, ignore_errors=True)
        raise OSError(
            f"{folder} could not be converted for another number of ranks ({error}); free some "
            "space there, or start as many ranks as have saved it"
        ) from error
