"""Teachers that are ``transformers`` models, by hub name (``owner/model``) or local folder.

CLIP (and checkpoints that are CLIP inside, such as CLIP4Clip), SigLIP and X-CLIP: models of two
towers that embed pictures and texts into one space. Code inside a checkpoint is never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch

from primus_scale.storage.foreign import reason
from primus_scale.teachers.base import Teacher, decode_frame, digest_text, digest_weights


@dataclass(frozen=True)
class Family:
    """The differences between the supported classes of models."""

    model_class: str
    padding: Literal["longest", "max_length"]  # of texts, as the model was trained
    masked: bool  # whether the text tower takes an attention mask
    default_processor: str | None  # for checkpoints without preprocessor_config.json


_ADVICE = (
    "give a local folder with config.json, model.safetensors and the tokenizer's files, or check "
    "the name and the connection to the hub"
)
FAMILIES = {  # by ``model_type`` of config.json
    "clip": Family("CLIPModel", "longest", True, "CLIPImageProcessorPil"),
    "siglip": Family("SiglipModel", "max_length", False, None),
    "xclip": Family("XCLIPModel", "longest", True, None),
}


def build_hub_teacher(modality: str, name: str, device: torch.device | str, batch: int) -> Teacher:
    """The ``modality`` tower of the model ``name``.

    Raises ValueError where the model cannot be read, lacks weights or a tokenizer, or is of none
    of the supported classes.
    """
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    with explain_load_errors(name, _ADVICE):
        family = _family(name, source)
        if modality == "text":
            return TextTower(name, source, family, device, batch)
        video_class = ClipTower if family.model_class == "XCLIPModel" else FrameTower
        return video_class(name, source, family, device, batch)


class Tokenizer:
    """The tokenizer of the model at ``source``: texts to at most ``tokens`` tokens each."""

    def __init__(self, source: str, tokens: int, padding: str) -> None:
        from transformers import AutoTokenizer  # slow to import

        self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        self._lock = Lock()  # tokenizers keep settings of the call and refuse concurrent ones
        self._tokens = tokens
        self._padding = padding

    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` ``(len(texts), longest)`` on ``device``."""
        with self._lock:
            encoding = self._tokenizer(
                list(texts),
                padding=self._padding,
                truncation=True,
                max_length=self._tokens,
                return_attention_mask=True,
                return_tensors="pt",
            )
        return {name: encoding[name].to(device) for name in ("input_ids", "attention_mask")}

    def describe(self) -> dict[str, Any]:
        """The properties of the tokenizer that change embeddings, for the embedding key."""
        vocabulary = map(str, sorted(self._tokenizer.get_vocab().items()))
        return {
            "tokenizer": type(self._tokenizer).__name__,
            "vocabulary": digest_text(*vocabulary),
            "tokens": self._tokens,
            "padding": self._padding,
        }


class TextTower(Teacher):
    """The text tower: one text is one unit, cut to the model's greatest number of tokens."""

    def __init__(
        self, name: str, source: str, family: Family, device: torch.device | str, batch: int
    ) -> None:
        model = load_frozen(family.model_class, source)
        longest = model.config.text_config.max_position_embeddings
        self._masked = family.masked
        self._tokenizer = Tokenizer(source, longest, family.padding)
        super().__init__(
            name,
            "text",
            dim=_width(model),
            weights=digest_weights(model.state_dict()),
            preprocessing=self._tokenizer.describe(),
            device=device,
            batch=batch,
        )
        del model.vision_model
        self._model = model.to(self.device)

    def forward(self, units: Sequence[str]) -> torch.Tensor:
        """Embeddings ``(len(units), D)`` of texts."""
        tokens = self._tokenizer(units, self.device)
        if not self._masked:
            del tokens["attention_mask"]
        return self._model.get_text_features(**tokens).pooler_output


class FrameTower(Teacher):
    """The vision tower of CLIP and SigLIP: one frame is one unit."""

    def __init__(
        self, name: str, source: str, family: Family, device: torch.device | str, batch: int
    ) -> None:
        model = load_frozen(family.model_class, source)
        self._processor = _image_processor(source, family, model.config.vision_config.image_size)
        super().__init__(
            name,
            "video",
            dim=_width(model),
            weights=digest_weights(model.state_dict()),
            preprocessing=self._processor.to_dict(),
            device=device,
            batch=batch,
        )
        del model.text_model
        self._model = model.to(self.device)

    def forward(self, units: Sequence[Any]) -> torch.Tensor:
        """Embeddings ``(len(units), D)`` of JPEG frames."""
        pixels = self._pixels([decode_frame(frame) for frame in units])
        return self._model.get_image_features(pixel_values=pixels).pooler_output

    def _pixels(self, pictures: Any) -> torch.Tensor:
        return self._processor(pictures, return_tensors="pt")["pixel_values"].to(self.device)


class ClipTower(FrameTower):
    """The video tower of X-CLIP: a window's frames together are one unit.

    The model takes a fixed number of frames. They are evenly spaced over the window's frames, some
    of them repeated if the window has fewer.
    """

    def units(self, items: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], ...]:
        """One unit: the frames that the model sees of the window."""
        frames = self._model.config.vision_config.num_frames
        places = np.linspace(0, len(items) - 1, frames).round().astype(int)
        return (tuple(items[place] for place in places),)

    def forward(self, units: Sequence[tuple[bytes, ...]]) -> torch.Tensor:
        """Embeddings ``(len(units), D)`` of clips of frames."""
        pixels = self._pixels([decode_frame(frame) for clip in units for frame in clip])
        clips = pixels.reshape(len(units), -1, *pixels.shape[-3:])
        return self._model.get_video_features(pixel_values=clips).pooler_output


def load_frozen(model_class: str, source: str) -> Any:
    """A ``transformers`` model in float32 and eval mode, without gradients.

    Raises ValueError where weights are missing, which ``transformers`` would draw at random.
    """
    import transformers

    with _no_progress_bar():
        model, report = getattr(transformers, model_class).from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"its weights lack {len(missing)} tensors of {model_class}: {missing[0]}")
    return model.eval().requires_grad_(False)


def _family(name: str, source: str) -> Family:
    from transformers import AutoConfig

    model_type = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    if model_type not in FAMILIES:
        supported = ", ".join(family.model_class for family in FAMILIES.values())
        raise ValueError(f"it is a model of type {model_type!r}; supported are {supported}")
    return FAMILIES[model_type]


def _image_processor(source: str, family: Family, pixels: int) -> Any:
    """The model's preprocessing, always by Pillow, so that keys and pixels agree everywhere."""
    import transformers
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    if family.default_processor and not get_image_processor_config(source):
        # CLIP4Clip checkpoints have none; they were trained with CLIP's.
        default = getattr(transformers, family.default_processor)
        return default(
            size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
        )
    return transformers.AutoImageProcessor.from_pretrained(
        source, backend="pil", trust_remote_code=False
    )


def _width(model: Any) -> int:
    """Width of the joint space; SigLIP has no projection on its vision tower."""
    config = model.config
    return int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def explain_load_errors(name: str, advice: str) -> Iterator[None]:
    """Turn any error of loading a teacher's files into a ValueError that names the teacher."""
    try:
        yield
    except Exception as error:  # of any kind: the files may be anybody's
        raise ValueError(f"teacher {name!r} cannot be used: {reason(error)}; {advice}") from error
