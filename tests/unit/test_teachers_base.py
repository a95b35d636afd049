"""Teachers: pooling of frames and texts into one embedding a window, and live mode."""

import numpy as np
import pytest
import torch

from primus_scale.config import TeachersConfig
from primus_scale.data.index import TeacherSpace
from primus_scale.sample import CHANNELS, UNITS, Batch, WindowFormat
from primus_scale.teachers import (
    Teacher,
    UnreadableFrameError,
    attach_teacher_embeddings,
    build_teacher,
    build_teachers,
    check_teachers,
    embed_windows,
    window_samples,
)
from primus_scale.teachers.base import decode_frame, digest_weights
from tests import crafted
from tests.teacher_models import jpeg


class CountingTeacher(Teacher):
    """Embeds a text as the counts of its letters, and remembers what it was asked."""

    def __init__(self, name="counting", modality="text", dim=26, batch=3):
        weights = {"counting": torch.zeros(dim)}
        super().__init__(
            name,
            modality,
            dim=dim,
            weights=digest_weights(weights),
            preprocessing={},
            device="cpu",
            batch=batch,
        )
        self.passes: list[list[str]] = []

    def forward(self, units):
        self.passes.append(list(units))
        counts = [[text.count(chr(97 + n)) for n in range(self.dim)] for text in units]
        return torch.tensor(counts, dtype=torch.float32)


def naive(items, dim=26):
    """Reference in float64: normalise each text's counts, mean, normalise."""
    rows = []
    for texts in items:
        units = []
        for text in texts:
            counts = np.array([text.count(chr(97 + n)) for n in range(dim)], dtype=np.float64)
            units.append(counts / np.linalg.norm(counts))
        mean = np.mean(units, axis=0) if units else np.zeros(dim)
        rows.append(mean / np.linalg.norm(mean) if units else mean)
    return np.array(rows)


ITEMS = [("walks", "he walks fast"), (), ("jumps",), ("walks", "walks", "sits"), ("sits",)]


def test_windows_embed_as_the_normalised_mean_of_normalised_units():
    embeddings, present = embed_windows(CountingTeacher(), ITEMS)
    assert embeddings.dtype == torch.float32
    np.testing.assert_allclose(embeddings.numpy(), naive(ITEMS), atol=1e-6)
    assert present.tolist() == [True, False, True, True, True]


def test_units_that_repeat_are_encoded_once_in_passes_of_the_batch():
    teacher = CountingTeacher(batch=3)
    embed_windows(teacher, ITEMS)
    assert teacher.passes == [["walks", "he walks fast", "jumps"], ["sits"]]


def test_no_window_has_an_item():
    teacher = CountingTeacher()
    embeddings, present = embed_windows(teacher, [(), ()])
    assert embeddings.shape == (2, 26)
    assert not embeddings.any()
    assert not present.any()
    assert teacher.passes == []


def test_embeddings_may_be_kept_by_a_backward_pass():
    embeddings, _ = embed_windows(CountingTeacher(), ITEMS)
    queries = torch.ones(5, 26, requires_grad=True)
    (queries @ embeddings.T).sum().backward()
    assert queries.grad is not None
    assert not embeddings.requires_grad


def make_batch(**changes):
    rows = len(ITEMS)
    ids = torch.arange(rows)
    columns = {
        "imu": torch.zeros(rows, 6, 4),
        "uid": ids,
        "recording": ids,
        "session": ids,
        "label": ids,
        "texts": ITEMS,
        "frames": [()] * rows,
    }
    return Batch(**(columns | changes))


def test_live_mode_puts_embeddings_in_place_of_texts():
    batch = attach_teacher_embeddings(make_batch(), {"text": CountingTeacher()})
    np.testing.assert_allclose(batch.embeddings["text"].numpy(), naive(ITEMS), atol=1e-6)
    assert batch.present["text"].tolist() == [True, False, True, True, True]
    assert batch.frames is None
    assert batch.texts is None


def test_live_mode_embeds_the_signal_of_windows_without_texts_and_frames():
    windows = WindowFormat(CHANNELS, UNITS, 40, 50.0)
    teachers = build_teachers(TeachersConfig(signal="handcrafted"), windows, "cpu")
    imu = torch.randn(len(ITEMS), 6, 40, generator=torch.Generator().manual_seed(0))
    batch = attach_teacher_embeddings(make_batch(imu=imu, texts=None, frames=None), teachers)
    expected, _ = embed_windows(teachers["signal"], window_samples(imu.numpy()))
    assert torch.equal(batch.embeddings["signal"], expected)
    assert batch.present["signal"].all()


def test_live_mode_on_packed_shards_is_refused():
    with pytest.raises(ValueError, match=r"bring no text .*'counting'.*embedded"):
        attach_teacher_embeddings(make_batch(texts=None), {"text": CountingTeacher()})


def space_of(teacher, **changes):
    values = {"dim": teacher.dim, "key": teacher.key, "space": teacher.space, "teacher": "old"}
    return {teacher.modality: TeacherSpace(**(values | changes))}


def test_teachers_of_the_shards_are_accepted():
    teacher = CountingTeacher()
    check_teachers({"text": teacher}, space_of(teacher), "shards/train")
    check_teachers({"text": teacher}, {}, "shards/train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 512}, r"shards/train: text .*'old'.* 512 wide, but teacher 'counting' gives 26"),
        ({"key": "ab"}, r"shards/train: text .*key ab, but teacher 'counting' has key .*weights"),
    ],
)
def test_another_teacher_than_the_shards_is_refused(changes, message):
    teacher = CountingTeacher()
    with pytest.raises(ValueError, match=message):
        check_teachers({"text": teacher}, space_of(teacher, **changes), "shards/train")


def test_unreadable_frames_are_named_as_such():
    frame = jpeg(0)[:200]
    with pytest.raises(UnreadableFrameError, match="200 bytes cannot be decoded") as caught:
        decode_frame(frame)
    assert caught.value.frame == frame


def test_live_mode_names_the_window_of_an_unreadable_frame():
    class Decoding(CountingTeacher):
        def forward(self, units):
            return super().forward([str(decode_frame(frame).size) for frame in units])

    batch = make_batch()
    bad = crafted.PICTURES["a picture that claims 65,500 x 65,500"]
    batch.frames = [(jpeg(0),)] * (len(batch) - 1) + [(jpeg(1), bad)]
    uid = int(batch.uid[-1])
    with pytest.raises(ValueError, match=rf"window {uid} of data\.train: .*shards verify"):
        attach_teacher_embeddings(batch, {"video": Decoding(modality="video")})


@pytest.mark.parametrize("what", crafted.PICTURES)
def test_crafted_frames_are_unreadable(what):
    with pytest.raises(UnreadableFrameError, match="cannot be decoded"):
        decode_frame(crafted.PICTURES[what])


@pytest.mark.parametrize(
    ("modality", "name", "message"),
    [
        ("video", "efficientnet-lite", "no video teacher .* nearest packaged one is 'efficientne"),
        ("text", "MiniML", "no text teacher 'MiniML' .* nearest packaged one is 'minilm'"),
        ("text", "efficientnet-lite0", "no text teacher 'efficientnet-lite0'"),
        ("video", "./no/such/folder", "no folder of that name"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(modality, name, message):
    with pytest.raises(ValueError, match=message):
        build_teacher(modality, name, "cpu")


def test_digest_follows_names_shapes_types_and_values():
    tensors = {"a": torch.arange(6.0), "b": torch.tensor(1, dtype=torch.int64)}
    same = {"b": torch.tensor(1, dtype=torch.int64), "a": torch.arange(6.0)}
    others = [
        tensors | {"a": torch.arange(6.0).reshape(2, 3)},
        tensors | {"a": torch.arange(6.0).to(torch.bfloat16)},
        tensors | {"a": torch.arange(6.0) + 1e-6},
        {"c": tensors["a"], "b": tensors["b"]},
    ]
    assert digest_weights(tensors) == digest_weights(same)
    assert len({digest_weights(t) for t in [tensors, *others]}) == 5
