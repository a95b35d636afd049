"""Exported encoders: they come back as they were, and damage is told, not loaded."""

import copy
import hashlib
import json
import math
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from primus_scale.config import EncoderConfig
from primus_scale.encoders import ImuEncoder, build_encoder
from primus_scale.encoders.calibration import CalibrationKind, FeatureCalibration, fit_calibration
from primus_scale.encoders.card import CalibrationCard, describe_encoder, read_card
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.signal.array_windows import resample
from primus_scale.signal.units import DEGREE, GRAVITY
from tests.encoder_factory import motion

TEACHERS = {
    "video": {"dim": 48, "key": "k1", "space": "s1", "teacher": "efficientnet-lite0"},
    "text": {"dim": 32, "key": "k2", "space": "s2", "teacher": "minilm"},
}


def make_encoder(name: str = "stacked_rnn_time", seed: int = 0, **settings: object) -> ImuEncoder:
    torch.manual_seed(seed)
    return build_encoder(
        EncoderConfig.model_validate({"name": name, "ss_dim": 24, "patch": 25, **settings}),
        channels=6,
        samples=250,
        rate_hz=50.0,
        teacher_dims={"video": 48, "text": 32},
        shared=False,
        mean=(0.1, 6.0, 0.5, 0.0, 0.0, 0.0),
        std=(2.0, 3.0, 2.0, 0.5, 0.5, 0.5),
    )


def export(encoder: ImuEncoder, directory: Path) -> Path:
    card = describe_encoder(
        encoder,
        teachers=TEACHERS,
        data={"train": ["demo"]},
        objective={"weights": {"imu_imu": 0.5}},
        licence="Apache-2.0",
    )
    save_encoder(encoder, directory, card)
    return directory


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return export(make_encoder(), tmp_path / "encoder")


def export_calibrated(encoder: ImuEncoder, directory: Path, kind: CalibrationKind) -> Path:
    """Exported with a calibration fitted on random features of two sessions."""
    features = np.random.default_rng(0).normal(3, 2, (20, encoder.backbone.width))
    fitted = fit_calibration(features, np.arange(20) % 2, kind)
    card = read_card(export(encoder, directory))
    encoder.calibration = FeatureCalibration.of(fitted, kind)
    calibration = CalibrationCard(
        kind=kind, windows=20, sessions=2, features=encoder.backbone.width
    )
    save_encoder(encoder, directory, card.model_copy(update={"calibration": calibration}))
    return directory


def edit_card(directory: Path, **changes: object) -> None:
    path = directory / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", ["stacked_rnn", "stacked_rnn_time", "conv_stats", "transformer"])
def test_round_trip_is_exact(name: str, pooling: str, tmp_path: Path) -> None:
    encoder = make_encoder(name, pooling=pooling).eval()
    export(encoder, tmp_path)
    random_state = torch.get_rng_state()
    loaded = load_encoder(tmp_path)
    assert torch.equal(torch.get_rng_state(), random_state), "loading used up random numbers"
    assert not loaded.training
    assert loaded.spec == encoder.spec
    imu = torch.randn(4, 6, 250)
    before, after = encoder(imu), loaded(imu)
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.ss, after.ss)
    assert all(torch.equal(before.mm[key], after.mm[key]) for key in TEACHERS)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_folder_holds_weights_and_a_card_that_says_all(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["card.json", "encoder.safetensors"]
    card = json.loads((exported / "card.json").read_text())
    assert card["rate_hz"] == 50.0
    assert card["window_samples"] == 250
    assert card["channels"][:2] == ["acc_x", "acc_y"]
    assert card["units"] == ["m/s2"] * 3 + ["rad/s"] * 3
    assert card["teachers"] == TEACHERS
    assert card["data"] == {"train": ["demo"]}
    assert card["objective"] == {"weights": {"imu_imu": 0.5}}
    assert card["licence"] == "Apache-2.0"
    assert read_card(exported).encoder.name == "stacked_rnn_time"


def test_bfloat16_weights_are_exported_as_float32(tmp_path: Path) -> None:
    encoder = make_encoder().bfloat16()
    export(encoder, tmp_path)
    loaded = dict(load_encoder(tmp_path).named_parameters())
    for name, parameter in encoder.named_parameters():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], parameter.float())


def test_second_export_replaces_the_first(exported: Path) -> None:
    other = make_encoder(seed=1)
    export(other, exported)
    assert torch.equal(load_encoder(exported).heads.ss.weight, other.heads.ss.weight)


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    encoder = make_encoder()
    with torch.no_grad():
        encoder.heads.ss.bias[3] = torch.nan
    with pytest.raises(ValueError, match=r"heads\.ss\.bias is not finite"):
        export(encoder, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


@pytest.fixture
def small_file_limit() -> Iterator[None]:
    """No file may grow beyond 100 kB: writing fails midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_failed_write_leaves_the_earlier_export(
    exported: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("small_file_limit")
    with pytest.raises(OSError, match=f"cannot write the encoder to {exported}"):
        export(make_encoder(seed=1), exported)
    assert sorted(path.name for path in exported.iterdir()) == ["card.json", "encoder.safetensors"]
    assert torch.equal(load_encoder(exported).heads.ss.weight, make_encoder().heads.ss.weight)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose another output folder"):
        export(make_encoder(), tmp_path / "file" / "encoder")


@pytest.mark.parametrize("name", ["card.json", "encoder.safetensors"])
def test_missing_file(exported: Path, name: str) -> None:
    (exported / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_encoder(exported)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no complete exported encoder"):
        load_encoder(tmp_path / "nothing")


def test_cut_and_altered_weights(exported: Path) -> None:
    path = exported / "encoder.safetensors"
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    for content in (whole[: len(whole) // 2], bytes(altered), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"encoder\.safetensors is damaged"):
            load_encoder(exported)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"card"', "[" * 100_000, '{"a": 1' + "0" * 9_999])
def test_damaged_card(exported: Path, text: str) -> None:
    (exported / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"card\.json"):
        load_encoder(exported)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this program reads 1"),
        ({"rate_hz": -50}, "rate_hz"),
        ({"licence": None}, "licence"),
        ({"window_size": 3}, "unknown key 'window_size'"),
        ({"encoder": {"name": "stacked_rn"}}, "encoder.name"),
        ({"encoder": {"name": "stacked_rnn"}}, "does not fit encoder 'stacked_rnn'"),
        ({"window_samples": 100}, "too short"),
        ({"teachers": {}}, "does not fit encoder"),
    ],
)
def test_card_that_does_not_hold(exported: Path, changes: dict[str, object], message: str) -> None:
    edit_card(exported, **changes)
    with pytest.raises(ValueError, match=message):
        load_encoder(exported)


def test_weights_of_another_shape(exported: Path) -> None:
    path = exported / "encoder.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["heads.ss.bias"] = torch.zeros(5)
    safetensors.torch.save_file(tensors, path)
    edit_card(exported, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"encoder\.safetensors does not fit"):
        load_encoder(exported)


@pytest.mark.parametrize(("value", "said"), [(math.nan, "nan"), (math.inf, "inf")])
def test_samples_that_are_not_finite_are_refused(exported: Path, value: float, said: str) -> None:
    encoder, imu = load_encoder(exported), torch.randn(3, 6, 250)
    imu[1, 4, 17] = imu[2, 0, 3] = value
    message = rf"holds {said} in window 1, channel gyr_y, sample 17 \(2 of 4500 samples"
    for module in (encoder, copy.deepcopy(encoder)):
        with pytest.raises(ValueError, match=message):
            module(imu)
        with pytest.raises(ValueError, match=message):
            module(imu=imu)
    assert encoder(imu[:1]).features.isfinite().all()
    assert not encoder.train()(imu).features.isfinite().all(), "training has its own check"


@pytest.mark.parametrize("kind", ["scaling", "whitening"])
def test_calibrated_encoder_comes_back(tmp_path: Path, kind: CalibrationKind) -> None:
    encoder = make_encoder().eval()
    export_calibrated(encoder, tmp_path, kind)
    imu = torch.randn(3, 6, 250)
    assert torch.equal(load_encoder(tmp_path)(imu).features, encoder(imu).features)
    edit_card(tmp_path, calibration={"kind": "none"})
    with pytest.raises(ValueError, match="does not fit encoder"):
        load_encoder(tmp_path)


def test_card_from_before_calibration_is_of_an_encoder_without(exported: Path) -> None:
    path = exported / "card.json"
    card = json.loads(path.read_text())
    assert card.pop("calibration")["kind"] == "none"
    path.write_text(json.dumps(card))
    assert load_encoder(exported).calibration is None


@pytest.mark.parametrize(  # Dynamo has no GRU
    ("name", "settings", "calibrated"),
    [
        ("transformer", {"pooling": "stats"}, False),
        ("conv_stats", {"size": "XS"}, True),
        ("conv_stats", {"size": "XS", "features": "handcrafted"}, False),
    ],
)
def test_a_loaded_encoder_can_be_compiled_and_exported(
    tmp_path: Path, name: str, settings: dict[str, str], calibrated: bool
) -> None:
    export_calibrated(make_encoder(name, **settings), tmp_path, "whitening")
    encoder = load_encoder(tmp_path, calibrated=calibrated)
    imu = torch.randn(3, 6, 250)
    with torch.no_grad():
        expected = encoder(imu).features
        compiled = torch.compile(encoder, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(imu).features, expected)
        program = torch.export.export(encoder, (imu,))
        torch.testing.assert_close(program.module()(imu).features, expected)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        bytes(7),
        (2**62).to_bytes(8, "little"),
        b"\x02\0\0\0\0\0\0\0[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        b'\x41\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775,8]}}'[
            :65
        ],
    ],
)
def test_crafted_weights_under_a_card_that_fits(exported: Path, weights: bytes) -> None:
    (exported / "encoder.safetensors").write_bytes(weights)
    edit_card(exported, weights_sha256=hashlib.sha256(weights).hexdigest())
    with pytest.raises(
        ValueError, match=r"encoder\.safetensors does not fit .* export the"
    ) as found:
        load_encoder(exported)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["vi.deo", "", "video.0", "audio", "x" * 10_000])
def test_a_teacher_s_name_that_no_module_can_have(exported: Path, name: str) -> None:
    edit_card(exported, teachers={name: TEACHERS["video"]})
    with pytest.raises(ValueError, match=r"card\.json: teachers: .* is none of") as found:
        load_encoder(exported)
    assert len(str(found.value)) < 500


def test_documented_use_of_an_encoder() -> None:
    """The snippet of README, on 20 s of an array at 100 Hz in g and deg/s."""
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    array = motion(100.0, 20.0)
    array /= [GRAVITY] * 3 + [DEGREE] * 3
    names = {"array": array}
    exec(snippet, names)
    with torch.no_grad():
        windows = resample(motion(100.0, 20.0), 100.0, 50.0).T.reshape(6, 4, 250)
        expected = load_encoder("demo")(torch.from_numpy(windows).transpose(0, 1)).features
    torch.testing.assert_close(torch.from_numpy(names["out"].features), expected)
    assert names["out"].start_s.tolist() == [0.0, 5.0, 10.0, 15.0]
