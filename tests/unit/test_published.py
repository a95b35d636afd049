"""Import of the published checkpoint's layout: exact, and closed to code and damage.

The real file cannot be had in a test, so one of the same layout is written here: Lightning's
entries around a state_dict with the encoder and its frozen teachers.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from primus_scale.encoders.card import read_card
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.encoders.published import import_published

SHAPES = {
    "backbone.0.weight": (6,),
    "backbone.0.bias": (6,),
    "backbone.1.net.0.weight": (32, 6, 10),
    "backbone.2.net.0.weight": (32, 32, 5),
    "backbone.3.net.0.weight": (32, 32, 5),
    "backbone.4.weight": (32,),
    "backbone.4.bias": (32,),
    "backbone.5.weight_ih_l0": (1536, 32),
    "backbone.5.weight_hh_l0": (1536, 512),
    "backbone.5.bias_ih_l0": (1536,),
    "backbone.5.bias_hh_l0": (1536,),
    "ssl_head.weight": (512, 512),
    "ssl_head.bias": (512,),
    "mmcl_head.weight": (512, 512),
    "mmcl_head.bias": (512,),
}


def make_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: 0.1 * torch.randn(*shape, generator=generator) for name, shape in SHAPES.items()}


def make_checkpoint(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    state = OrderedDict((f"imu_encoder.{name}", tensor) for name, tensor in weights.items())
    state["video_encoder.visual_projection.weight"] = torch.randn(16, 16)
    state["text_encoder.text_projection.weight"] = torch.randn(16, 16)
    state["loss_temperature"] = torch.tensor(0.1)
    return {
        "epoch": 14,
        "global_step": 1234,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": []}],
        "hyper_parameters": {"batch_size": 16},
    }


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def recomputed(imu: torch.Tensor, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder of the paper written out, in float64, with the published names."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    batch = imu.shape[0]
    groups = imu.double().view(batch, 2, -1)
    mean, variance = groups.mean(-1, keepdim=True), groups.var(-1, keepdim=True, unbiased=False)
    signal = ((groups - mean) / (variance + 1e-5).sqrt()).view(imu.shape)
    signal = signal * w["backbone.0.weight"][:, None] + w["backbone.0.bias"][:, None]
    for block in (1, 2, 3):
        signal = F.conv1d(signal, w[f"backbone.{block}.net.0.weight"], dilation=2)
        if block < 3:
            signal = signal.unfold(2, 3, 3).amax(dim=-1)
    length = signal.shape[2]
    starts = [step * length // 32 for step in range(32)]
    ends = [-(-(step + 1) * length // 32) for step in range(32)]
    bins = [signal[:, :, a:b].mean(-1) for a, b in zip(starts, ends, strict=True)]
    groups = torch.stack(bins, dim=2).view(batch, 4, -1)
    mean, variance = groups.mean(-1, keepdim=True), groups.var(-1, keepdim=True, unbiased=False)
    pooled = ((groups - mean) / (variance + 1e-5).sqrt()).view(batch, 32, 32)
    pooled = pooled * w["backbone.4.weight"][:, None] + w["backbone.4.bias"][:, None]
    state = torch.zeros(batch, 512, dtype=torch.float64)
    for channel in range(32):  # the GRU scans channels, each with its 32 time steps
        incoming = pooled[:, channel] @ w["backbone.5.weight_ih_l0"].T + w["backbone.5.bias_ih_l0"]
        recurrent = state @ w["backbone.5.weight_hh_l0"].T + w["backbone.5.bias_hh_l0"]
        reset = torch.sigmoid(incoming[:, :512] + recurrent[:, :512])
        update = torch.sigmoid(incoming[:, 512:1024] + recurrent[:, 512:1024])
        candidate = torch.tanh(incoming[:, 1024:] + reset * recurrent[:, 1024:])
        state = (1 - update) * candidate + update * state
    return {
        "features": state,
        "ss": state @ w["ssl_head.weight"].T + w["ssl_head.bias"],
        "mm": state @ w["mmcl_head.weight"].T + w["mmcl_head.bias"],
    }


def test_imported_encoder_equals_the_paper_written_out(tmp_path: Path) -> None:
    weights = make_weights()
    checkpoint = save(make_checkpoint(weights), tmp_path / "best_model.ckpt")
    out = tmp_path / "encoder"
    assert import_published(checkpoint, out) == out
    imu = torch.randn(5, 6, 250) + torch.tensor([0, 9.8, 0, 0, 0, 0]).view(1, 6, 1)
    embeddings, expected = load_encoder(out)(imu), recomputed(imu, weights)
    for name, got in (
        ("features", embeddings.features),
        ("ss", embeddings.ss),
        ("mm", embeddings.mm["video"]),
        ("mm", embeddings.mm["text"]),
    ):
        torch.testing.assert_close(got.double(), expected[name], rtol=1e-4, atol=1e-4)
    card = read_card(out)
    assert card.calibration.kind == "none"
    assert card.parameters == 1_376_204
    assert card.licence == "CC-BY-4.0"
    assert (card.rate_hz, card.window_samples) == (50.0, 250)


def test_the_published_weights_take_only_encoder_entries(tmp_path: Path) -> None:
    checkpoint = save(make_checkpoint(make_weights()), tmp_path / "best_model.ckpt")
    out = import_published(checkpoint, tmp_path / "encoder")
    size = (out / "encoder.safetensors").stat().st_size
    assert size < 1_376_204 * 4 + 4096


class RunsCode:
    """Unpickling this writes a file: what a malicious checkpoint would do, made harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict"])
def test_code_in_the_checkpoint_is_refused_and_not_run(tmp_path: Path, place: str) -> None:
    touched = tmp_path / "touched"
    content = make_checkpoint(make_weights())
    content[place]["extra"] = RunsCode(touched)  # type: ignore[index]
    checkpoint = save(content, tmp_path / "best_model.ckpt")
    with pytest.raises(ValueError, match="could run code, and is refused"):
        import_published(checkpoint, tmp_path / "encoder")
    assert not touched.exists()
    assert not (tmp_path / "encoder").exists()


def test_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    checkpoint = tmp_path / "best_model.ckpt"
    checkpoint.write_bytes(pickle.dumps(RunsCode(touched)))
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        import_published(checkpoint, tmp_path / "encoder")
    assert not touched.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    checkpoint = save(make_checkpoint(make_weights()), tmp_path / "best_model.ckpt")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"best_model\.ckpt is cut short"):
        import_published(checkpoint, tmp_path / "encoder")


def test_altered_tensor_bytes(tmp_path: Path) -> None:
    checkpoint = save(make_checkpoint(make_weights()), tmp_path / "best_model.ckpt")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match=r"best_model\.ckpt is damaged"):
        import_published(checkpoint, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"download best_model\.ckpt"):
        import_published(tmp_path / "best_model.ckpt", tmp_path / "encoder")


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, {"state_dict": torch.zeros(3)}])
def test_file_of_another_program(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match="no 'state_dict'"):
        import_published(save(content, tmp_path / "other.pt"), tmp_path / "encoder")


def test_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(ValueError, match="no checkpoint that torch can read"):
        import_published(path, tmp_path / "encoder")


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    weights = make_weights()
    weights["backbone.6.weight"] = weights.pop("backbone.4.weight")
    path = save(make_checkpoint(weights), tmp_path / "best_model.ckpt")
    with pytest.raises(ValueError, match=r"lacks \['backbone\.4\.weight'\] and has \['backbone\.6"):
        import_published(path, tmp_path / "encoder")
    path = save(make_checkpoint({}), tmp_path / "best_model.ckpt")
    with pytest.raises(ValueError, match="another encoder than the published one"):
        import_published(path, tmp_path / "encoder")


@pytest.mark.parametrize("wrong", [torch.zeros(512, 256), 3.0])
def test_entry_of_another_shape(tmp_path: Path, wrong: object) -> None:
    content = make_checkpoint(make_weights())
    content["state_dict"]["imu_encoder.ssl_head.weight"] = wrong  # type: ignore[index]
    path = save(content, tmp_path / "best_model.ckpt")
    with pytest.raises(ValueError, match=r"ssl_head\.weight should have shape \(512, 512\)"):
        import_published(path, tmp_path / "encoder")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = make_weights()
    weights["mmcl_head.bias"][0] = torch.inf
    path = save(make_checkpoint(weights), tmp_path / "best_model.ckpt")
    with pytest.raises(ValueError, match="not finite"):
        import_published(path, tmp_path / "encoder")
