"""DeepSpeed's files of a checkpoint: write them, read them, convert them for other rank counts.

ZeRO (arXiv 1910.02054) partitions the optimiser's state over ranks, and its files can be read by
the same number of ranks only. For another number ``convert_state`` writes them in DeepSpeed's
universal form, one file for each parameter (arXiv 2406.18820;
https://www.deepspeed.ai/tutorials/universal-checkpointing). When DeepSpeed reads its files, only
tensors, numbers and the few classes named below are unpickled.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open

from primus_scale.distributed.pulse import pulse
from primus_scale.engine.engine import Engine
from primus_scale.storage.foreign import decoding

STATE = "state"  # DeepSpeed's tag: the folder of its files in a checkpoint
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def save_state(engine: Engine, folder: Path) -> StateFiles:
    """Write the engine's state to ``folder/state``, each rank its own part.

    Every rank calls it at the same time. The result has the error if a write failed.
    """
    files = StateFiles()
    engine.deepspeed.checkpoint_engine = files
    # DeepSpeed would copy scripts to the folder; on a full disk that would fail on rank 0 only.
    engine.deepspeed._copy_recovery_script = lambda path: None
    with pulse.long_work():
        engine.deepspeed.save_checkpoint(str(folder), tag=STATE, save_latest=False)
    return files


def load_state(engine: Engine, folder: Path) -> None:
    """Restore the engine from ``folder/state``, written by the same number of ranks."""
    engine.deepspeed.checkpoint_engine = StateFiles()
    with _plain_name(folder) as path, pulse.long_work():
        engine.deepspeed.load_checkpoint(str(path), tag=STATE)


def check_readable(folder: Path, names: Iterable[str]) -> None:
    """Check that the tensors in the files ``names`` of ``folder`` can be read, without reading all.

    Needs no other rank. DamagedInputError naming the first file that holds no tensors, or classes
    that are not allowed.
    """
    for name in names:
        path = folder / name
        if path.suffix == ".pt":
            with decoding(str(path)), _only_tensors():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        elif path.suffix == ".safetensors":
            with decoding(str(path)), safe_open(path, framework="pt") as file:
                file.keys()


def load_converted(engine: Engine, folder: Path) -> None:
    """Restore the engine, with ZeRO stage 1 to 3, from the files of ``convert_state``."""
    deepspeed = engine.deepspeed
    optimizer = deepspeed.basic_optimizer
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    deepspeed._config.load_universal_checkpoint = True  # unknown when the engine was built
    with _only_tensors():
        load_state(engine, folder)
    deepspeed._config.load_universal_checkpoint = False
    # Stage 3 gives all groups the settings of the first group, and all states the same tensor as
    # their step count, which then each group's update would increase.
    for group, before in zip(optimizer.param_groups, settings, strict=True):
        group.update(before)
    for parameter, state in optimizer.state.items():
        state["step"] = torch.as_tensor(state["step"]).to(parameter.device, copy=True)


def convert_state(folder: Path, out: Path) -> None:
    """Convert ``folder/state``, by any number of ranks, to ``out/state`` in the universal form.

    Needs no other rank. Raises the errors of ``torch`` where it cannot read or write.
    """
    from deepspeed.checkpoint import ds_to_universal

    (out / STATE).mkdir(parents=True)
    with _plain_name(folder) as source, _plain_name(out) as target:
        arguments = argparse.Namespace(
            input_folder=str(source / STATE),
            output_folder=str(target / STATE),
            num_extract_workers=1,  # more would fork this process
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
        silent = io.StringIO()
        with _only_tensors(), redirect_stdout(silent), redirect_stderr(silent):
            ds_to_universal.main(arguments)


class StateFiles:
    """Writes and reads files for DeepSpeed, with the methods of its ``CheckpointEngine``.

    error: of a failed write. It is not raised at once, since the other ranks would then wait at
    DeepSpeed's barrier. written: paths of the files.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.written: list[Path] = []

    def save(self, state_dict: Mapping[str, Any], path: str) -> None:
        """Write a tree of tensors, numbers and text; see ``error`` and ``written``."""
        try:
            torch.save(state_dict, path)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the second
            self.error = error
        self.written.append(Path(path))

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read such a tree; ``pickle.UnpicklingError`` where it holds other classes."""
        with _only_tensors():
            return torch.load(path, map_location=map_location, weights_only=True)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder."""
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def create(self, info: object) -> None:
        """Do nothing: there is nothing to prepare."""

    def commit(self, info: object) -> bool:
        """Do nothing: ``Checkpoints`` makes files current."""
        return True

    def is_data_parallel_writer(self, dp_rank: int) -> bool:
        """Whether this rank writes the state that is equal on all ranks."""
        return dp_rank == 0

    def is_decoupled(self) -> bool:
        """Whether files are written in the background: no."""
        return False

    def preserves_storage_sharing(self) -> bool:
        """Whether tensors that share memory are written once: torch does so."""
        return True


@contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """A link to ``folder`` without special characters: DeepSpeed reads paths as glob patterns."""
    with TemporaryDirectory() as scratch:
        link = Path(scratch, "folder")
        link.symlink_to(folder.absolute())
        yield link


@contextmanager
def _only_tensors() -> Iterator[None]:
    """In the block every ``torch.load`` reads only tensors and the few classes below."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # They stay registered: the end of a nested block would remove them from the outer block.
    torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
