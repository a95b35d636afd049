"""Checkpoints: all that a run needs to go on bit for bit, made current in one step.

    OUTPUT/checkpoints/step-00000250/
        manifest.json          progress, identity of the run, size and sha256 of every file
        state/                 DeepSpeed's files: weights and optimiser, in the pieces of its ranks
        support/               the support set, in the pieces of its parts
        encoder/               the encoder by itself, exported

A checkpoint is written under a hidden name and renamed when every file and its manifest are on
disk. So a kill at any moment leaves the one before. Neither random generators nor the learning
rate nor the order of data need saving: each is a pure function of the seed and the step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from primus_scale.collectives import on_first_rank, sum_over_ranks
from primus_scale.config import Config
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders import ImuEncoder
from primus_scale.encoders.export import EncoderCard, save_encoder
from primus_scale.engine import Engine, Runtime
from primus_scale.support import SupportSet

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state"
SUPPORT = "support"
ENCODER = "encoder"
SCHEMA_VERSION = 1

# OSError, and what torch and safetensors make of it; ValueError is an encoder that is not finite.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError, ValueError)

# A run may go on with other values of these; all else must be as it was.
MAY_CHANGE = (
    "name",
    "output",
    "data.train",  # compared by content instead, so that shards may move
    "data.validation",
    "data.reader_threads",
    "data.prefetch_batches",
    "teachers.video",  # compared by embedding key instead, so that models may move
    "teachers.text",
    "teachers.batch",
    "support.index",
    "support.home",
    "support.actors",
    "support.cpus_per_actor",
    "support.gpus_per_actor",
    "support.threads",
    "support.timeout_s",
    "support.synchronous",
    "train.accumulation",
    "train.steps",
    "train.device",
    "train.threads",
    "train.log_every",
    "train.validate_every",
    "train.pictures_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_nonfinite",
    "launch",
    "few_shot",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and how many of them left the weights alone, also in a row.

    The position in the data follows from ``step`` (``Schedule.locate``).
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


class Checkpoints:
    """The checkpoints of one run. Every rank calls the same methods at the same time.

    encoder, card: what ``encoder/`` is written from; ``encoder`` is a copy on the CPU that takes
    on the weights of the moment.
    """

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        data: ShardSet,
        encoder: ImuEncoder,
        card: EncoderCard,
    ) -> None:
        self._folder = Path(config.output) / FOLDER
        self._keep = config.train.keep_checkpoints
        self._zero_stage = config.train.zero_stage
        self._runtime = runtime
        self._identity = _identity(config, data, card)
        self._encoder = encoder
        self._card = card
        self._saved_step: int | None = None

    def save(self, engine: Engine, support: SupportSet | None, progress: Progress) -> None:
        """Write a checkpoint, make it current, and drop all but the last few.

        OSError naming the folder where it cannot be written; the one before stays current.
        """
        if progress.step == self._saved_step:
            return
        final = self._folder / f"step-{progress.step:08d}"
        partial = self._folder / f".{final.name}.partial"
        if support is not None:
            support.flush()
        weights = engine.encoder_state()
        self._attempt(final, lambda: self._begin(partial, weights, support))
        self._attempt(final, lambda: _save_state(engine, partial), all_ranks=True)
        self._attempt(final, lambda: self._finish(partial, final, progress))
        self._saved_step = progress.step
        if support is not None:
            support.saved(final / SUPPORT)

    def resume(self, engine: Engine, support: SupportSet | None) -> Progress:
        """Restore the newest checkpoint that is whole; ``Progress()`` where there is none yet.

        A damaged one is passed over with a warning. ValueError where all are damaged, or where
        the newest whole one is of another run (naming the fields) or number of ranks.
        """
        newest = on_first_rank(lambda: _newest_whole(self._folder))
        if newest is None:
            return Progress()
        name, manifest = newest
        folder = self._folder / name
        self._check_fits(folder, manifest)
        _load_state(engine, folder)
        if support is not None:
            support.load(folder / SUPPORT)
        progress = Progress(**manifest["progress"])
        self._saved_step = progress.step
        return progress

    def _begin(
        self, partial: Path, weights: dict[str, torch.Tensor], support: SupportSet | None
    ) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._encoder.load_state_dict(weights)
        save_encoder(self._encoder, partial / ENCODER, self._card)
        if support is not None:
            (partial / SUPPORT).mkdir()
            support.save(partial / SUPPORT)

    def _finish(self, partial: Path, final: Path, progress: Progress) -> None:
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = {
            "schema": SCHEMA_VERSION,
            "progress": asdict(progress),
            "world": self._runtime.world,
            "identity": self._identity,
            "files": {path.relative_to(partial).as_posix(): _fingerprint(path) for path in files},
        }
        manifest["sha256"] = _digest(manifest)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in (*files, partial / MANIFEST, partial / STATE, partial):
            _flush(path)
        # Only a damaged one can stand there: whole ones are resumed from, not written again.
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(self._folder)
        self._prune(final)

    def _prune(self, newest: Path) -> None:
        """Keep the last few checkpoints up to ``newest``, just written, and nothing else."""
        existing = _existing(self._folder)
        count = existing.index(newest) + 1
        # Newer ones are damaged, or the run would have gone on from them.
        outdated = existing[: max(count - self._keep, 0)] + existing[count:]
        for path in (*outdated, *self._folder.glob(".*.partial")):
            shutil.rmtree(path, ignore_errors=True)

    def _attempt(self, final: Path, write: Callable[[], None], all_ranks: bool = False) -> None:
        """Run ``write`` on the first rank or on all; where one fails, all of them raise OSError."""
        error: Exception | None = None
        if all_ranks or self._runtime.rank == 0:
            try:
                write()
            except WRITE_ERRORS as caught:
                error = caught
        failed = torch.tensor(float(error is not None), device=self._runtime.device)
        if float(sum_over_ranks(failed)):
            raise OSError(
                f"checkpoint {final} could not be written ({error or 'on another rank'}); the one "
                "before stays current. Free some space or choose another output, and start again"
            ) from error

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
        world = manifest["world"]
        if self._zero_stage > 0 and world != self._runtime.world:
            raise ValueError(
                f"{folder} was saved by {world} ranks with train.zero_stage={self._zero_stage}, "
                f"which cuts the optimiser by rank, but {self._runtime.world} are running; start "
                f"{world} ranks, or begin a new run with train.zero_stage=0"
            )


def newest_encoder(output: str | Path) -> Path:
    """Folder of the encoder in the newest whole checkpoint of the run in ``output``.

    FileNotFoundError where there is no checkpoint; ValueError where all are damaged.
    """
    folder = Path(output) / FOLDER
    newest = _newest_whole(folder)
    if newest is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint; give the output folder of a run")
    return folder / newest[0] / ENCODER


def _newest_whole(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Name and manifest of the newest checkpoint whose files are those that were written."""
    existing = _existing(folder)
    for path in reversed(existing):
        try:
            return path.name, _read_whole(path)
        except (OSError, ValueError) as error:
            log.warning("passing over the damaged checkpoint %s: %s", path, error)
    if existing:
        raise ValueError(
            f"none of the checkpoints in {folder} is whole; restore one from a copy, or remove "
            "the folder to start from the beginning"
        )
    return None


def _read_whole(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{path} is not of schema {SCHEMA_VERSION}, which this program reads")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise ValueError(f"{path} is not what was written")
    for name, fingerprint in manifest["files"].items():
        if _fingerprint(folder / name) != fingerprint:
            raise ValueError(f"{folder / name} is not what was written")
    return manifest


def _existing(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _identity(config: Config, data: ShardSet, card: EncoderCard) -> dict[str, Any]:
    """What must be equal for a run to be continued, by configuration key."""
    fields = _flatten(config.model_dump(mode="json"))
    identity = {
        key: value
        for key, value in fields.items()
        if not any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)
    }
    shards = "\n".join(shard.sha256 for index in data.indexes for shard in index.shards)
    identity["data.train (content)"] = hashlib.sha256(shards.encode()).hexdigest()
    for modality, teacher in card.teachers.items():
        identity[f"teachers.{modality} (key)"] = teacher.key
    return identity


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            fields |= _flatten(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def _save_state(engine: Engine, folder: Path) -> None:
    files = StateFiles()
    engine.deepspeed.checkpoint_engine = files
    engine.deepspeed.save_checkpoint(str(folder), tag=STATE, save_latest=False)
    if files.error is not None:
        raise files.error


def _load_state(engine: Engine, folder: Path) -> None:
    engine.deepspeed.checkpoint_engine = StateFiles()
    engine.deepspeed.load_checkpoint(str(folder), tag=STATE)


class StateFiles:
    """How DeepSpeed writes and reads its files (the methods of its ``CheckpointEngine``).

    A failed write is kept for later: an exception on one rank would leave the others waiting at
    DeepSpeed's barrier. Reading unpickles tensors, numbers and the few classes named, nothing else.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def save(self, state_dict: Mapping[str, Any], path: str) -> None:
        """Write a tree of tensors, numbers and text; see ``error``."""
        try:
            torch.save(state_dict, path)
        except WRITE_ERRORS as error:
            self.error = error

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read such a tree; ``pickle.UnpicklingError`` where other classes stand in it."""
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, weights_only=True)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder."""
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def create(self, info: object) -> None:
        """Prepare nothing."""

    def commit(self, info: object) -> bool:
        """Leave it to ``Checkpoints`` to make files current."""
        return True

    def is_data_parallel_writer(self, dp_rank: int) -> bool:
        """Whether this rank writes what all have alike."""
        return dp_rank == 0

    def is_decoupled(self) -> bool:
        """Whether files are written in the background: no."""
        return False

    def preserves_storage_sharing(self) -> bool:
        """Whether tensors that share memory are written once: torch does so."""
        return True
