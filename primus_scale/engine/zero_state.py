"""DeepSpeed's files of a checkpoint: written, read, and read by another number of ranks.

ZeRO (arXiv 1910.02054) cuts the optimiser's state by rank, and its files fit as many ranks as
wrote them. For another number ``convert_state`` brings them into DeepSpeed's universal form, one
file for each parameter (arXiv 2406.18820; https://www.deepspeed.ai/tutorials/universal-checkpointing).
Whatever of DeepSpeed reads them, nothing but tensors, numbers and the few classes named below is
unpickled.
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
    """Write the engine's state to ``folder/state``, every rank its piece; see ``StateFiles.error``.

    Every rank calls it at the same time.
    """
    files = StateFiles()
    engine.deepspeed.checkpoint_engine = files
    # It puts scripts next to the files, and on a full disk rank 0 would fail in that alone.
    engine.deepspeed._copy_recovery_script = lambda path: None
    with pulse.long_work():
        engine.deepspeed.save_checkpoint(str(folder), tag=STATE, save_latest=False)
    return files


def load_state(engine: Engine, folder: Path) -> None:
    """Restore the engine from ``folder/state``, written by as many ranks as are running."""
    engine.deepspeed.checkpoint_engine = StateFiles()
    with _plain_name(folder) as path, pulse.long_work():
        engine.deepspeed.load_checkpoint(str(path), tag=STATE)


def check_readable(folder: Path, names: Iterable[str]) -> None:
    """Check that the tensors of ``names`` in ``folder`` can be read, without reading them all.

    Needs no other rank. DamagedInputError naming the first file that is none, or holds classes.
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
    """Restore the engine, with ZeRO stage 1 to 3, from what ``convert_state`` wrote."""
    deepspeed = engine.deepspeed
    optimizer = deepspeed.basic_optimizer
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    deepspeed._config.load_universal_checkpoint = True  # not known yet when the engine was built
    with _only_tensors():
        load_state(engine, folder)
    deepspeed._config.load_universal_checkpoint = False
    # Stage 3 gives all groups the settings of the first, and all states one tensor of the step,
    # which each group's update would then count up.
    for group, before in zip(optimizer.param_groups, settings, strict=True):
        group.update(before)
    for parameter, state in optimizer.state.items():
        state["step"] = torch.as_tensor(state["step"]).to(parameter.device, copy=True)


def convert_state(folder: Path, out: Path) -> None:
    """Write ``folder/state``, of any number of ranks, to ``out/state`` in the universal form.

    Needs no other rank. Raises what ``torch`` raises where it cannot read or write.
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
    """How DeepSpeed writes and reads its files (the methods of its ``CheckpointEngine``).

    A failed write is kept for later: an exception on one rank would leave the others waiting at
    DeepSpeed's barrier.
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
        """Read such a tree; ``pickle.UnpicklingError`` where other classes stand in it."""
        with _only_tensors():
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


@contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """Another path of ``folder``: DeepSpeed takes paths for patterns, which ``run [1]`` is not."""
    with TemporaryDirectory() as scratch:
        link = Path(scratch, "folder")
        link.symlink_to(folder.absolute())
        yield link


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Whoever calls ``torch.load`` meanwhile, and however, reads tensors and these few classes."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # For good: blocks within each other would take them from the outer one.
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
