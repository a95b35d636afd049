"""Encoders: sizes, shapes, what each keeps of the signal, and how they refuse bad settings."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from primus_scale.config import EncoderConfig
from primus_scale.encoders import Embeddings, ImuEncoder, build_encoder
from primus_scale.encoders.handcrafted import HandFeatures
from primus_scale.signal.features import hand_features

SAMPLES = 250
GRAVITY = torch.tensor([0.3, 9.7, 0.9, 0.0, 0.0, 0.0]).view(1, 6, 1)
TEACHERS = {"video": 512, "text": 512}
NAMES = ("stacked_rnn", "stacked_rnn_time", "conv_stats", "transformer")


def make_encoder(
    name: str = "stacked_rnn",
    *,
    samples: int = SAMPLES,
    channels: int = 6,
    teacher_dims: dict[str, int] | None = None,
    shared: bool = True,
    heads: str = "auto",
    **settings: object,
) -> ImuEncoder:
    torch.manual_seed(0)
    return build_encoder(
        EncoderConfig.model_validate({"name": name, "heads": heads, **settings}),
        channels=channels,
        samples=samples,
        rate_hz=50.0,
        teacher_dims=TEACHERS if teacher_dims is None else teacher_dims,
        shared=shared,
        mean=(0.1, 6.0, 0.5, 0.0, 0.0, 0.0, 0.0)[:channels],
        std=(2.0, 3.0, 2.0, 0.5, 0.5, 0.5, 1.0)[:channels],
    )


def make_imu(batch: int = 3, samples: int = SAMPLES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return GRAVITY + torch.randn(batch, 6, samples, generator=generator)


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_stacked_rnn_has_the_published_number_of_parameters() -> None:
    assert parameter_count(make_encoder()) == 1_376_204


@pytest.mark.parametrize(
    ("size", "count"), [("S", 21_721_600), ("B", 85_909_504), ("L", 303_449_088)]
)
def test_transformer_sizes_are_as_documented(size: str, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(make_encoder("transformer", size=size)) == count


def test_stacked_rnn_lengths_are_those_of_the_paper() -> None:
    convolutions = make_encoder().backbone.convolutions
    lengths = []
    for module in convolutions.convolutions:
        module.register_forward_hook(lambda _m, x, y: lengths.extend((x[0].shape[2], y.shape[2])))
    pooled = convolutions(torch.randn(2, 6, SAMPLES))
    assert lengths == [250, 232, 77, 69, 23, 15]
    assert pooled.shape == (2, 32, 32)


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_gradients(name: str, pooling: str) -> None:
    dims = {"video": 40, "text": 24}
    encoder = make_encoder(name, teacher_dims=dims, shared=False, ss_dim=16, pooling=pooling)
    embeddings = encoder(make_imu())
    assert embeddings.features.shape == (3, encoder.backbone.width)
    assert embeddings.ss.shape == (3, 16)
    assert {key: tuple(value.shape) for key, value in embeddings.mm.items()} == {
        "video": (3, 40),
        "text": (3, 24),
    }
    total = embeddings.ss.square().sum() + sum(mm.square().sum() for mm in embeddings.mm.values())
    total.backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize(
    ("size", "count"), [("XS", 91_904), ("S", 449_616), ("B", 3_538_832), ("L", 28_522_800)]
)
def test_conv_stats_sizes_are_as_documented(size: str, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(make_encoder("conv_stats", size=size).backbone) == count


def test_conv_stats_pools_mean_and_deviation_of_its_input() -> None:
    imu = make_imu(4)
    backbone = make_encoder("conv_stats", gravity=False).backbone
    seen = []
    backbone.pooled_norm.register_forward_hook(lambda _m, x, _y: seen.append(x[0]))
    backbone(imu)
    mean = torch.tensor((0.1, 6.0, 0.5, 0.0, 0.0, 0.0)).view(1, 6, 1)
    std = torch.tensor((2.0, 3.0, 2.0, 0.5, 0.5, 0.5)).view(1, 6, 1)
    signal = ((imu - mean) / std).double()
    expected = torch.cat([signal.mean(2), (signal.var(2, correction=0) + 1e-4).sqrt().log()], 1)
    torch.testing.assert_close(seen[0][:, :12].double(), expected, rtol=1e-5, atol=1e-5)


def statistics_of(signal: np.ndarray) -> list[float]:
    """Means, then logarithms of deviations, of ``(C, T)`` by their definitions."""
    means = [sum(row) / len(row) for row in signal]
    variances = [
        sum((x - mean) ** 2 for x in row) / len(row)
        for row, mean in zip(signal, means, strict=True)
    ]
    return means + [0.5 * np.log(variance + 1e-4) for variance in variances]


@pytest.mark.parametrize("name", ["conv_stats", "stacked_rnn", "stacked_rnn_time", "transformer"])
def test_statistics_stand_before_the_features_that_heads_take(name: str) -> None:
    settings = {"gravity": False} | ({} if name == "conv_stats" else {"pooling": "stats"})
    torch.manual_seed(3)
    last = make_encoder(name, **settings)
    kept = make_encoder(name, **settings, features="all")
    kept.load_state_dict(last.state_dict())
    imu = make_imu()
    few, many = last.eval()(imu), kept.eval()(imu)
    torch.testing.assert_close(many.features[:, -last.backbone.width :], few.features)
    torch.testing.assert_close(many.ss, few.ss)
    signal = kept.backbone.standardise(imu).double().numpy()
    expected = [statistics_of(window) for window in signal]
    np.testing.assert_allclose(many.features[:, :12].detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_handcrafted_features_stand_before_the_features_that_heads_take(name: str) -> None:
    last, both = make_encoder(name), make_encoder(name, features="handcrafted")
    imu = make_imu().requires_grad_()
    few, many = last.eval()(imu), both.eval()(imu)
    torch.testing.assert_close(many.features[:, -last.backbone.width :], few.features)
    torch.testing.assert_close(many.ss, few.ss)
    expected = hand_features(imu.detach().numpy(), 50.0)
    crafted = many.features[:, : -last.backbone.width]
    np.testing.assert_allclose(crafted.detach(), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(crafted.sum() + few.features[:1].sum(), imu)
    assert not gradient[1:].any(), "no gradient goes through formulas"


@pytest.mark.parametrize(("channels", "samples", "rate_hz"), [(3, 101, 20.0), (4, 64, 100.0)])
def test_handcrafted_features_of_other_windows(channels: int, samples: int, rate_hz: float) -> None:
    imu = 3 * make_imu(samples=samples)[:, :channels]
    imu[1, 1] = 0.5
    imu[2, 2] = 9.8 + 1e-4 * imu[2, 2]  # nearly silent beside gravity
    expected = hand_features(imu.numpy(), rate_hz)
    found = HandFeatures(samples, rate_hz)(imu)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_statistics_that_an_encoder_does_not_pool_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match=r"encoder\.pooling=stats only"):
        make_encoder("transformer", features="all")


@pytest.mark.parametrize("gravity", [True, False])
@pytest.mark.parametrize("name", ["stacked_rnn", "stacked_rnn_time", "transformer"])
def test_pooled_statistics_from_their_definition(name: str, gravity: bool) -> None:
    """Of the input and of the last layer along time, then layer norm and a linear map."""
    backbone = make_encoder(name, pooling="stats", gravity=gravity).backbone
    seen = {}
    last = {"stacked_rnn": "convolutions", "stacked_rnn_time": "gru", "transformer": "norm"}[name]
    for layer in {last, "gru", "standardise"} & {n for n, _ in backbone.named_children()}:
        keep = lambda _m, _x, y, layer=layer: seen.update({layer: y})  # noqa: E731
        getattr(backbone, layer).register_forward_hook(keep)
    features = backbone(make_imu()).detach().double().numpy()
    assert seen["standardise"].shape[1] == (12 if gravity else 6)
    sequence = {  # (B, N, L)
        "stacked_rnn": lambda y: y,
        "stacked_rnn_time": lambda y: y[0].permute(1, 2, 0),
        "transformer": lambda y: y.transpose(1, 2),
    }[name](seen[last])
    weights = {n: w.detach().double().numpy() for n, w in backbone.pooling.named_parameters()}
    for row in range(3):
        joined = statistics_of(seen["standardise"][row].double().numpy())
        joined += statistics_of(sequence[row].detach().double().numpy())
        if "gru" in seen:
            joined += seen["gru"][1][0, row].tolist()
        values = np.array(joined)
        values = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        values = values * weights["norm.weight"] + weights["norm.bias"]
        expected = weights["project.weight"] @ values + weights["project.bias"]
        np.testing.assert_allclose(features[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["stacked_rnn", "stacked_rnn_time", "transformer"])
def test_an_encoders_own_pooling_is_as_it_was(name: str) -> None:
    """Neither statistics nor channels of gravity come in unless they are asked for."""
    own, plain = make_encoder(name), make_encoder(name, gravity=False)
    weights, others = own.state_dict(), plain.state_dict()
    assert not any("pooling" in key for key in weights)
    assert ("backbone.standardise.mean" in weights) == (name != "stacked_rnn")
    assert all(torch.equal(weights[key], others[key]) for key in weights.keys() | others.keys())


def test_conv_stats_pools_statistics_in_either_case() -> None:
    own, stats = make_encoder("conv_stats"), make_encoder("conv_stats", pooling="stats")
    assert torch.equal(own(make_imu()).features, stats(make_imu()).features)


@pytest.mark.parametrize("name", ["stacked_rnn_time", "conv_stats", "transformer"])
@pytest.mark.parametrize(("channels", "samples"), [(1, 251), (5, 251), (7, 250)])
def test_statistics_of_any_channels_and_length(name: str, channels: int, samples: int) -> None:
    settings = {"pooling": "stats", "channels": channels, "samples": samples}
    if name == "transformer":
        settings["patch"] = samples  # 251 is prime
    imu = torch.randn(2, channels, samples)
    assert make_encoder(name, gravity=False, **settings)(imu).features.isfinite().all()
    with pytest.raises(ValueError, match=rf"have {channels} channels; set encoder\.gravity=false"):
        make_encoder(name, **settings)


def test_gravity_frame_does_not_see_how_the_device_is_turned() -> None:
    """Six channels of the input turn with the device, the six others do not."""
    frame = make_encoder("conv_stats").backbone.standardise
    imu = make_imu(4)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))
    turned = torch.cat([turn @ imu[:, :3], turn @ imu[:, 3:]], dim=1)
    first, second = frame(imu), frame(turned)
    assert first.shape == (4, 12, SAMPLES)
    assert (first[:, :6] - second[:, :6]).abs().amax(dim=(0, 2)).min() > 0.1
    torch.testing.assert_close(first[:, 6:], second[:, 6:], rtol=1e-4, atol=1e-4)


def test_gravity_frame_from_its_definition() -> None:
    frame = make_encoder("conv_stats").backbone.standardise
    imu = make_imu(1).double()
    mean, std = torch.tensor((0.1, 6.0, 0.5)), torch.tensor((2.0, 3.0, 2.0))
    up = imu[0, :3].mean(1) / imu[0, :3].mean(1).norm()
    usual = {"acc": (mean**2 + std**2).sum().sqrt(), "gyr": torch.tensor(3 * 0.5**2).sqrt()}
    deviation = {"acc": (std**2).mean().sqrt(), "gyr": 0.5}
    found = frame(imu.float())[0, 6:].double()
    for row, (name, sensor) in enumerate((("acc", imu[0, :3]), ("gyr", imu[0, 3:]))):
        along = up @ sensor
        across = (sensor - up[:, None] * along).norm(dim=0)
        gravity = usual["acc"] if name == "acc" else 0.0
        for kind, part in enumerate((sensor.norm(dim=0) - usual[name], along - gravity, across)):
            expected = part / deviation[name]
            torch.testing.assert_close(found[2 * kind + row], expected, rtol=1e-4, atol=1e-4)


def test_a_window_has_the_same_features_in_any_batch() -> None:
    imu = make_imu(5)
    encoder = make_encoder("conv_stats").train()
    together, alone = encoder(imu).features, encoder(imu[2:3]).features
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def test_teachers_of_one_space_share_a_head() -> None:
    embeddings = make_encoder(shared=True)(make_imu())
    assert embeddings.mm["video"] is embeddings.mm["text"]


@pytest.mark.parametrize(
    ("heads", "shared", "count"),
    [("auto", True, 1), ("auto", False, 2), ("separate", True, 2), ("shared", False, 1)],
)
def test_heads_setting_overrules_the_teachers(heads: str, shared: bool, count: int) -> None:
    assert len(make_encoder(heads=heads, shared=shared).heads.mm) == count


def test_no_teachers_no_multimodal_heads() -> None:
    assert make_encoder(teacher_dims={}, shared=True)(make_imu()).mm == {}


def test_the_signal_has_a_head_of_its_own_beside_a_shared_one() -> None:
    dims = {"video": 8, "text": 8, "signal": 5}
    for heads in ("auto", "shared"):
        encoder = make_encoder(teacher_dims=dims, shared=True, heads=heads)
        assert list(encoder.heads.mm) == ["shared", "signal"]
        mm = encoder(make_imu()).mm
        assert mm["video"] is mm["text"]
        assert {name: rows.shape[1] for name, rows in mm.items()} == dims
    alone = make_encoder(teacher_dims={"signal": 5}, shared=False, heads="shared")
    assert list(alone.heads.mm) == ["signal"] and not alone.spec.shared_head


def test_stacked_rnn_is_blind_to_scale_and_the_variant_is_not() -> None:
    imu = make_imu()
    for name, blind in (("stacked_rnn", True), ("stacked_rnn_time", False)):
        encoder = make_encoder(name)
        difference = (encoder(imu).features - encoder(1.5 * imu).features).abs().max()
        assert (difference < 1e-4) == blind


def test_statistics_let_stacked_rnn_know_the_scale() -> None:
    encoder, imu = make_encoder(pooling="stats"), make_imu()
    assert (encoder(imu).features - encoder(1.5 * imu).features).abs().max() > 0.05


def test_variant_standardises_has_relu_and_scans_time() -> None:
    encoder = make_encoder("stacked_rnn_time")
    weights = encoder.state_dict()
    mean = torch.tensor((0.1, 6.0, 0.5, 0.0, 0.0, 0.0)).view(1, 6, 1)
    std = torch.tensor((2.0, 3.0, 2.0, 0.5, 0.5, 0.5)).view(1, 6, 1)
    signal = (make_imu() - mean) / std
    for block in range(3):
        kernel = weights[f"backbone.convolutions.convolutions.{block}.weight"]
        signal = F.conv1d(signal, kernel, dilation=2).clamp(min=0)
        signal = F.max_pool1d(signal, 3) if block < 2 else F.adaptive_avg_pool1d(signal, 32)
    prefix = "backbone.convolutions.norm."
    signal = F.group_norm(signal, 4, weights[prefix + "weight"], weights[prefix + "bias"])
    state = torch.zeros(3, 512)
    for step in range(32):
        state = gru_step(signal[:, :, step], state, weights)
    torch.testing.assert_close(encoder(make_imu()).features, state, rtol=1e-4, atol=1e-5)


def gru_step(
    step: torch.Tensor, state: torch.Tensor, weights: dict[str, torch.Tensor]
) -> torch.Tensor:
    gru = {name.split(".")[-1]: value for name, value in weights.items() if ".gru." in name}
    incoming = (step @ gru["weight_ih_l0"].T + gru["bias_ih_l0"]).chunk(3, dim=1)
    recurrent = (state @ gru["weight_hh_l0"].T + gru["bias_hh_l0"]).chunk(3, dim=1)
    reset = torch.sigmoid(incoming[0] + recurrent[0])
    update = torch.sigmoid(incoming[1] + recurrent[1])
    candidate = torch.tanh(incoming[2] + reset * recurrent[2])
    return (1 - update) * candidate + update * state


def test_transformer_attention_equals_a_loop() -> None:
    attention = make_encoder("transformer").backbone.layers[0].attention.double()
    tokens = torch.randn(2, 5, 384, dtype=torch.float64)
    query, key, value = attention.qkv(tokens).chunk(3, dim=-1)
    mixed = torch.empty_like(tokens)
    for row in range(2):
        for head in range(6):
            part = slice(64 * head, 64 * (head + 1))
            scores = query[row, :, part] @ key[row, :, part].T / 64**0.5
            mixed[row, :, part] = scores.softmax(dim=1) @ value[row, :, part]
    torch.testing.assert_close(attention(tokens), attention.out(mixed))


def test_transformer_knows_the_order_of_patches() -> None:
    encoder = make_encoder("transformer")
    imu = make_imu()
    swapped = torch.cat((imu[:, :, 10:20], imu[:, :, :10], imu[:, :, 20:]), dim=2)
    assert not torch.allclose(encoder(imu).features, encoder(swapped).features, atol=1e-3)
    with torch.no_grad():
        encoder.backbone.embed.position.zero_()
    torch.testing.assert_close(
        encoder(imu).features, encoder(swapped).features, rtol=1e-3, atol=1e-4
    )


def test_transformer_layers_start_small() -> None:
    layer = make_encoder("transformer").backbone.layers[11]
    for linear, std in (
        (layer.attention.qkv, 0.02),
        (layer.mlp[0], 0.02),
        (layer.attention.out, 0.02 / 24**0.5),
        (layer.mlp[2], 0.02 / 24**0.5),
    ):
        assert linear.weight.detach().std() == pytest.approx(std, rel=0.02)
        assert torch.equal(linear.bias, torch.zeros_like(linear.bias))


def test_a_patch_holds_neighbouring_samples_of_all_channels() -> None:
    encoder = make_encoder("transformer")
    imu = make_imu(1)
    changed = imu.clone()
    changed[:, :, 30:40] += 1
    embed = encoder.backbone.embed
    moved = (embed(imu) - embed(changed)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_weights_take_float32_windows(name: str, pooling: str) -> None:
    imu = GRAVITY + 0.05 * torch.randn(8, 6, SAMPLES)  # bfloat16 itself resolves 0.03 at 9.7
    encoder = make_encoder(name, pooling=pooling)
    exact = encoder(imu).ss
    rounded = encoder.bfloat16()(imu).ss
    assert rounded.dtype == torch.bfloat16
    assert F.cosine_similarity(exact, rounded.float()).min() > 0.99


@pytest.mark.parametrize("shape", [(6, 250), (2, 5, 250), (2, 6, 249)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(B, 6, 250\), which is 5 s at 50 Hz"):
        make_encoder()(torch.zeros(shape))


@pytest.mark.parametrize("name", ["stacked_rnn", "stacked_rnn_time"])
def test_shortest_window_of_the_convolutions(name: str) -> None:
    assert make_encoder(name, samples=123)(make_imu(2, 123)).features.shape == (2, 512)
    with pytest.raises(ValueError, match="122 samples are too short"):
        make_encoder(name, samples=122)


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder\.patch=12 does not divide"):
        make_encoder("transformer", patch=12)
    with pytest.raises(ValueError, match=r"encoder\.size=XS is none of the transformer's"):
        make_encoder("transformer", size="XS")
    with pytest.raises(ValueError, match=r"set encoder\.heads=separate"):
        make_encoder(teacher_dims={"video": 8, "text": 9}, heads="shared")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.0,) * 5, (1.0,) * 6, "mean has 5 values for 6 channels"),
        ((0.0,) * 6, (1.0,) * 5 + (0.0,), "channel without variation"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(
            EncoderConfig(),
            channels=6,
            samples=SAMPLES,
            rate_hz=50.0,
            teacher_dims={},
            shared=False,
            mean=mean,
            std=std,
        )


def test_embeddings_are_cut_and_joined_along_the_batch() -> None:
    features = torch.arange(12.0).view(6, 2)
    embeddings = Embeddings(features, features + 100, {"video": features + 200})
    view0, view1 = embeddings.chunk(2)
    assert view0.features.tolist() == features[:3].tolist()
    assert view1.mm["video"].tolist() == (features[3:] + 200).tolist()
    joined = Embeddings.cat([view0, view1])
    for tensor, original in zip(joined[:2], embeddings[:2], strict=True):
        assert torch.equal(tensor, original)
    assert torch.equal(joined.mm["video"], embeddings.mm["video"])
    with pytest.raises(ValueError, match="cannot be cut into 4"):
        embeddings.chunk(4)
