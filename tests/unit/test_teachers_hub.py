"""Hub teachers, on tiny models of the same classes saved to disk."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional

from primus_scale.teachers import build_teacher, embed_windows
from primus_scale.teachers.base import decode_frame
from tests import crafted
from tests.teacher_models import WORDS, jpeg, processor, save_model

FAMILIES = ("clip", "siglip", "xclip")
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "xclip": "XCLIPModel"}
FRAMES = [jpeg(seed) for seed in range(5)]
TEXTS = ["walks", "runs jumps", "C sits stands walks", "runs"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(root / family, family) for family in FAMILIES}


def reference_model(folder, family):
    import transformers

    return getattr(transformers, CLASSES[family]).from_pretrained(folder).eval()


@pytest.mark.parametrize("family", ("clip", "siglip"))
def test_frames_are_embedded_one_by_one(folders, family):
    teacher = build_teacher("video", str(folders[family]), "cpu", batch=2)
    model, prepare = reference_model(folders[family], family), processor(family)
    expected = []
    for frame in FRAMES:
        pixels = prepare(decode_frame(frame), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected.append(model.get_image_features(pixel_values=pixels).pooler_output[0])
    expected = functional.normalize(torch.stack(expected))
    torch.testing.assert_close(teacher.encode(FRAMES), expected, atol=1e-5, rtol=0)
    assert teacher.dim == expected.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_do_not_depend_on_their_company(folders, family):
    from transformers import AutoTokenizer

    teacher = build_teacher("text", str(folders[family]), "cpu", batch=3)
    model = reference_model(folders[family], family)
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=8)["input_ids"]
        if family == "siglip":  # trained on texts padded to full length, without a mask
            ids = ids + [tokenizer.pad_token_id] * (8 - len(ids))
        with torch.no_grad():
            features = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output
        expected.append(features[0])
    expected = functional.normalize(torch.stack(expected))
    torch.testing.assert_close(teacher.encode(TEXTS), expected, atol=1e-5, rtol=0)
    assert teacher.dim == expected.shape[1]


@pytest.mark.parametrize(
    ("count", "drawn"), [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (4, [0, 1, 2, 3]), (5, [0, 1, 3, 4])]
)
def test_xclip_sees_the_frames_of_a_window_as_one_clip(folders, count, drawn):
    teacher = build_teacher("video", str(folders["xclip"]), "cpu")
    model, prepare = reference_model(folders["xclip"], "xclip"), processor("xclip")
    clip = [decode_frame(FRAMES[place]) for place in drawn]
    pixels = prepare(clip, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = functional.normalize(model.get_video_features(pixel_values=pixels).pooler_output)
    found, present = embed_windows(teacher, [(), tuple(FRAMES[:count])])
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=0)
    assert present.tolist() == [False, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_of_one_model_share_their_space_and_not_their_key(folders, family):
    name = str(folders[family])
    video, text = (build_teacher(modality, name, "cpu") for modality in ("video", "text"))
    assert video.space == text.space
    assert video.key != text.key
    assert video.dim == text.dim


def test_keys_follow_weights_and_preprocessing_not_the_place(folders, tmp_path):
    original = build_teacher("video", str(folders["clip"]), "cpu")
    copy = shutil.copytree(folders["clip"], tmp_path / "copy")
    assert build_teacher("video", str(copy), "cpu").key == original.key

    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(settings | {"resample": 2}))
    bilinear = build_teacher("video", str(copy), "cpu")
    assert bilinear.space == original.space
    assert bilinear.key != original.key

    other = build_teacher("video", str(save_model(tmp_path / "other", "clip", seed=1)), "cpu")
    assert other.space != original.space
    assert other.key != original.key


def test_clip_without_its_own_preprocessing_takes_that_of_clip(folders, tmp_path):
    copy = shutil.copytree(folders["clip"], tmp_path / "clip4clip")
    (copy / "preprocessor_config.json").unlink()
    expected = build_teacher("video", str(folders["clip"]), "cpu")
    found = build_teacher("video", str(copy), "cpu")
    torch.testing.assert_close(found.encode(FRAMES), expected.encode(FRAMES))


def test_models_of_other_classes_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"type 'bert'; supported are CLIPModel, SiglipModel, X"):
        build_teacher("video", str(tmp_path), "cpu")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be used: .*config.json"):
        build_teacher("text", str(tmp_path), "cpu")


def test_hub_names_that_cannot_be_reached_are_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'nobody/no-such-model' cannot be used: .*connection"):
        build_teacher("video", "nobody/no-such-model", "cpu")


def test_missing_and_damaged_weights_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folders["clip"], tmp_path / "clip")
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    del tensors["visual_projection.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors .*visual_projection.weight"):
        build_teacher("video", str(copy), "cpu")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be used"):
        build_teacher("video", str(copy), "cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", crafted.TRAP),
        ("pytorch_model.bin", b"PK" + bytes(100)),
        ("model.safetensors", (2**60).to_bytes(8, "little")),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"model_type": "clip", "text_config": 5}'),
        ("config.json", b'{"model_type": "clip", "vision_config": {"image_size": "x"}}'),
        ("config.json", b'{"model_type": ["clip"]}'),
        ("preprocessor_config.json", b"[" * 100_000),
        ("preprocessor_config.json", b'{"image_processor_type": "Path"}'),
    ],
)
def test_files_of_strangers_end_in_one_line_and_run_no_code(folders, tmp_path, name, content):
    copy = shutil.copytree(folders["clip"], tmp_path / "clip")
    if name == "pytorch_model.bin":
        (copy / "model.safetensors").unlink()
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^teacher '.*clip' cannot be used: .+; give a") as found:
        build_teacher("video", str(copy), "cpu")
    assert "\n" not in str(found.value)


def test_code_beside_a_model_is_not_asked_for(tmp_path):
    """Transformers would ask on the terminal, and run it on a yes."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}})
    )
    (tmp_path / "mine.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(ValueError, match="cannot be used"):
        build_teacher("video", str(tmp_path), "cpu")


def test_words_of_the_tests_are_in_the_tiny_vocabulary(folders):
    teacher = build_teacher("text", str(folders["clip"]), "cpu")
    found = teacher.encode([word.lower() for word in WORDS])
    assert len(np.unique(found.numpy().round(5), axis=0)) == len(WORDS)
