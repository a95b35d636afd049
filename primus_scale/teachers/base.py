"""The base class of teachers, and the embedding of a window from its frames, texts or samples.

The embedding stage, which stores embeddings as float16 in packed shards, and live mode, which
computes them in the step, both call `embed_windows`. So they agree up to float16 rounding.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from primus_scale.data.index import TeacherSpace
from primus_scale.sample import SIGNAL, Batch
from primus_scale.storage.foreign import decode_picture

Encode = Callable[[Sequence[Any]], torch.Tensor]
Run = Callable[[Encode, Iterable[Sequence[Any]]], Iterable[torch.Tensor]]


class Teacher(ABC):
    """A frozen encoder of one modality.

    name: as given in the configuration. modality: ``video``, ``text`` or ``signal``. dim: width D
    of an embedding. key: digest of weights and preprocessing; embeddings may be mixed only if their
    keys are equal. space: digest of the weights only; both towers of a CLIP model have the same,
    since they embed into one space. batch: units in one forward pass.
    """

    def __init__(
        self,
        name: str,
        modality: str,
        *,
        dim: int,
        weights: str,
        preprocessing: Mapping[str, Any],
        device: torch.device | str,
        batch: int,
    ) -> None:
        self.name = name
        self.modality = modality
        self.dim = dim
        self.space = weights
        self.key = digest_text(weights, modality, json.dumps(preprocessing, sort_keys=True))
        self.device = torch.device(device)
        self.batch = batch

    def units(self, items: tuple[Any, ...]) -> tuple[Hashable, ...]:
        """The units of a window that are encoded: by default each of its items."""
        return items

    @abstractmethod
    def forward(self, units: Sequence[Any]) -> torch.Tensor:
        """Embeddings ``(len(units), D)`` of at most ``batch`` units, of any norm."""

    def encode(self, units: Sequence[Any], run: Run = map) -> torch.Tensor:
        """Embeddings ``(len(units), D)`` float32 on the teacher's device, L2-normalised.

        run: maps a function over the forward passes, such as ``map`` of an executor.
        """
        if not units:
            return torch.zeros(0, self.dim, device=self.device)
        passes = [units[start : start + self.batch] for start in range(0, len(units), self.batch)]
        # Normalising outside of inference mode gives tensors that a backward pass may keep.
        return functional.normalize(torch.cat(list(run(self._infer, passes))), dim=-1)

    def _infer(self, units: Sequence[Any]) -> torch.Tensor:
        with torch.inference_mode():
            return self.forward(units).float()


def embed_windows(
    teacher: Teacher, items: Sequence[tuple[Any, ...]], run: Run = map
) -> tuple[torch.Tensor, torch.Tensor]:
    """One embedding a window: the normalised mean of its units' normalised embeddings.

    ``items`` holds B tuples of JPEG frames (video), of texts, or of the window's samples (signal,
    ``window_samples``). ``run``: see `Teacher.encode`. Returns the embeddings ``(B, D)`` float32,
    zero where a window has no item, and the mask ``(B,)`` bool of the windows that have one. Both
    are on the teacher's device. A unit that occurs several times is encoded once: windows of one
    moment from several devices have the same frames.
    """
    units = [teacher.units(window) if window else () for window in items]
    flat = [unit for window in units for unit in window]
    places = {unit: place for place, unit in enumerate(dict.fromkeys(flat))}
    encoded = teacher.encode(list(places), run)
    sources = _indices([places[unit] for unit in flat], teacher.device)
    starts = _indices([0, *accumulate(map(len, units))][:-1], teacher.device)
    # Adds in the order of the units on any device; atomic adds would not give equal bytes.
    sums = functional.embedding_bag(sources, encoded, starts, mode="sum")
    present = torch.tensor([bool(window) for window in units], device=teacher.device)
    return functional.normalize(sums, dim=-1), present


def window_samples(imu: np.ndarray) -> list[tuple[bytes, ...]]:
    """The samples of each window ``(B, C, T)`` as its one item for ``embed_windows``: float32."""
    return [(window.tobytes(),) for window in imu.astype(np.float32)]


def attach_teacher_embeddings(
    batch: Batch, teachers: Mapping[str, Teacher], source: str = "data.train"
) -> Batch:
    """The batch with embeddings and masks in place of its frames and texts (live mode).

    teachers: by modality, from `build_teachers`. source: the setting that names the shards, for
    messages. New tensors are on the device of ``batch.imu``.
    Raises ValueError where the batch has no frames or texts that a teacher needs, and, naming the
    window, where a frame cannot be decoded.
    """
    sources: dict[str, Sequence[tuple[Any, ...]] | None]
    sources = {"video": batch.frames, "text": batch.texts}
    if SIGNAL in teachers:
        sources[SIGNAL] = window_samples(batch.imu.cpu().numpy())
    embeddings, present = dict(batch.embeddings), dict(batch.present)
    for modality, teacher in teachers.items():
        items = sources[modality]
        if items is None:
            raise ValueError(
                f"teachers.mode is live, but the shards of {source} bring no {modality} to "
                f"teacher {teacher.name!r}; use window shards, or teachers.mode=embedded"
            )
        try:
            vectors, mask = embed_windows(teacher, items)
        except UnreadableFrameError as error:
            row = next(row for row, window in enumerate(items) if error.frame in window)
            raise ValueError(
                f"window {int(batch.uid[row])} of {source}: {error}; find all such with "
                "primus-scale shards verify, and build the shards again"
            ) from None
        embeddings[modality] = vectors.to(batch.imu.device)
        present[modality] = mask.to(batch.imu.device)
    return replace(batch, embeddings=embeddings, present=present, frames=None, texts=None)


def spaces_of(teachers: Mapping[str, Teacher]) -> dict[str, TeacherSpace]:
    """The embedding spaces of ``teachers``, by modality, as an index of shards describes them."""
    return {
        modality: TeacherSpace(dim=t.dim, key=t.key, space=t.space, teacher=t.name)
        for modality, t in teachers.items()
    }


def check_teachers(
    teachers: Mapping[str, Teacher], spaces: Mapping[str, TeacherSpace], source: str
) -> None:
    """Refuse teachers that are not those of the embeddings ``spaces`` of the shards at ``source``.

    Raises ValueError naming the shards, the modality and what differs: the width, or the key.
    """
    for modality in teachers.keys() & spaces.keys():
        teacher, space = teachers[modality], spaces[modality]
        start = f"{source}: {modality} embeddings were made by teacher {space.teacher!r}"
        step = (
            f"name that teacher in teachers.{modality}, or embed these shards again with "
            "primus-scale shards embed"
        )
        if teacher.dim != space.dim:
            raise ValueError(
                f"{start} and are {space.dim} wide, but teacher {teacher.name!r} gives "
                f"{teacher.dim}; {step}"
            )
        if teacher.key != space.key:
            raise ValueError(
                f"{start} under key {space.key}, but teacher {teacher.name!r} has key "
                f"{teacher.key} (other weights or preprocessing); {step}"
            )


class UnreadableFrameError(ValueError):
    """A frame that is no picture; ``frame`` holds its bytes, for the caller to find its window."""

    def __init__(self, frame: bytes, reason: Exception) -> None:
        super().__init__(f"a frame of {len(frame)} bytes cannot be decoded: {reason}")
        self.frame = frame


def decode_frame(frame: bytes) -> Image.Image:
    """The RGB picture of an encoded frame; UnreadableFrameError where it is damaged."""
    try:
        return decode_picture(frame, "the frame")
    except ValueError as error:
        raise UnreadableFrameError(frame, error) from None


def digest_weights(tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest of named tensors, independent of their file format: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def digest_text(*parts: str) -> str:
    """Digest of texts in their order: 32 hexadecimal digits."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _indices(values: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
