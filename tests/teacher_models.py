"""Tiny models of the classes that hub teachers support, saved to disk; and pictures for them."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from primus_scale.sample import Window
from primus_scale.teachers.hub import _no_progress_bar

WORDS = ("walks", "runs", "jumps", "sits", "stands", "C")
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def jpeg(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A smooth random picture, JPEG-encoded."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def illustrate(windows: Sequence[Window]) -> list[Window]:
    """The windows with frames and texts that the models tell apart, where they have any.

    One to three frames a window, no two windows with the same; one or two texts, often repeated.
    """
    texts = ("walks", "runs", "sits", "jumps", "walks runs")
    return [
        replace(
            window,
            frames=tuple(jpeg(number // 2 + f) for f in range(1 + number % 3)),
            meta=replace(window.meta, texts=texts[number % 5 :][:2]),
        )
        if window.frames
        else window
        for number, window in enumerate(windows)
    ]


def save_model(folder: Path, family: str, seed: int = 0) -> Path:
    """A tiny ``clip``, ``siglip`` or ``xclip`` model with tokenizer and image processor."""
    import transformers

    torch.manual_seed(seed)
    text = {**TOWER, "vocab_size": 32, "max_position_embeddings": 8, "eos_token_id": 1}
    vision = {**TOWER, "image_size": 32, "patch_size": 16}
    if family == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    elif family == "siglip":
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model = transformers.SiglipModel(config)
    else:
        mit = {f"mit_{name}": value for name, value in TOWER.items()} | {"mit_hidden_size": 12}
        vision = {**vision, **mit, "num_frames": 4}
        config = transformers.XCLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model = transformers.XCLIPModel(config)
    with _no_progress_bar():
        model.save_pretrained(folder)
    save_tokenizer(folder)
    processor(family).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of a few letters and words."""
    from transformers import CLIPTokenizer

    letters = sorted(set("".join(WORDS).lower()))
    entries = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)


def processor(family: str):
    """The image processor that models of this family come with."""
    import transformers

    sides = {"height": 32, "width": 32}
    if family == "siglip":
        return transformers.SiglipImageProcessorPil(size=sides)
    if family == "xclip":
        return transformers.VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size=sides)
    return transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=sides)
