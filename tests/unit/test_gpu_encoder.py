"""Encoders and augmentations on CUDA: the same results as on the CPU, all on the device."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from primus_scale.augment import RowDraws, build_augment, rotation_matrices, step_generator
from primus_scale.config import EncoderConfig
from primus_scale.config.augment import (
    ChannelDropout,
    Jitter,
    Negation,
    Permutation,
    Rotation,
    Scaling,
    TimeFlip,
    TimeWarp,
)
from primus_scale.encoders import ImuEncoder, build_encoder
from primus_scale.encoders.calibration import CalibrationKind, FeatureCalibration, fit_calibration

pytestmark = pytest.mark.gpu

NAMES = ("stacked_rnn", "stacked_rnn_time", "conv_stats", "transformer")
OPS = (
    TimeWarp(),
    Rotation(),
    Scaling(),
    Jitter(),
    Permutation(),
    ChannelDropout(),
    TimeFlip(),
    Negation(),
)


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    """cuDNN's default TF32 convolutions keep 10 bits only: too few to compare with the CPU."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def make_encoder(name: str, pooling: str = "own") -> ImuEncoder:
    torch.manual_seed(0)
    return build_encoder(
        EncoderConfig.model_validate({"name": name, "pooling": pooling}),
        channels=6,
        samples=250,
        rate_hz=50.0,
        teacher_dims={"video": 512, "text": 512},
        shared=True,
        near=True,
        mean=(0.1, 6.0, 0.5, 0.0, 0.0, 0.0),
        std=(2.0, 3.0, 2.0, 0.5, 0.5, 0.5),
    )


def make_imu(batch: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    gravity = torch.tensor([0.3, 9.7, 0.9, 0.0, 0.0, 0.0]).view(1, 6, 1)
    return gravity + torch.randn(batch, 6, 250, generator=generator)


def gradients(encoder: ImuEncoder, imu: torch.Tensor) -> dict[str, torch.Tensor]:
    embeddings = encoder(imu)
    heads = (embeddings.ss, embeddings.mm["video"], embeddings.near)
    sum(head.square().mean() for head in heads).backward()
    return {
        name: parameter.grad.cpu()
        for name, parameter in encoder.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_and_gradients_equal_the_cpu(name: str, pooling: str) -> None:
    imu = make_imu()
    expected = make_encoder(name, pooling)(imu)
    expected_grads = gradients(make_encoder(name, pooling), imu)
    encoder = make_encoder(name, pooling).cuda()
    embeddings = encoder(imu.cuda())
    torch.testing.assert_close(embeddings.ss.cpu(), expected.ss, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        embeddings.mm["text"].cpu(), expected.mm["text"], rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(embeddings.near.cpu(), expected.near, rtol=1e-3, atol=1e-4)
    for parameter, gradient in gradients(encoder, imu.cuda()).items():
        scale = expected_grads[parameter].abs().max().item()
        torch.testing.assert_close(
            gradient, expected_grads[parameter], rtol=1e-2, atol=1e-3 * scale + 1e-7
        )


@pytest.mark.parametrize("pooling", ["own", "stats"])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_on_cuda(name: str, pooling: str) -> None:
    imu = make_imu().cuda()
    exact = make_encoder(name, pooling).cuda()(imu).ss
    rounded = make_encoder(name, pooling).cuda().bfloat16()(imu).ss
    assert rounded.dtype == torch.bfloat16
    assert F.cosine_similarity(exact, rounded.float()).min() > 0.99


def test_views_on_cuda_do_not_depend_on_the_number_of_ranks() -> None:
    imu = make_imu().cuda()
    augment = build_augment(OPS)
    whole = augment(imu, step_generator(7, 0, "cuda"), slice(0, 16), 16)
    assert whole.device == imu.device
    assert whole.isfinite().all()
    assert not torch.equal(whole, imu)
    for rows in (slice(0, 4), slice(4, 16)):
        local = augment(imu[rows], step_generator(7, 0, "cuda"), rows, 16)
        torch.testing.assert_close(local, whole[rows])


def test_augmentation_does_not_wait_for_the_device() -> None:
    imu, augment = make_imu().cuda(), build_augment(OPS)
    augment(imu, step_generator(7, 0, "cuda"), slice(0, 16), 16)
    generator = step_generator(7, 1, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(imu, generator, slice(0, 16), 16)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_permutation_on_cuda_keeps_all_samples() -> None:
    ramp = torch.arange(250.0, device="cuda").expand(300, 6, 250)
    augment = build_augment((Permutation(p=1.0),))
    view = augment(ramp, step_generator(0, 0, "cuda"), slice(0, 300), 300)
    assert torch.equal(view.sort(dim=-1).values, ramp)
    assert (view[:, 0].diff(dim=-1) != 1).sum(dim=-1).max() <= 4


def test_rotations_on_cuda_are_in_so3() -> None:
    draws = RowDraws(step_generator(0, 0, "cuda"), slice(0, 1000), 1000)
    matrices = rotation_matrices(draws, 180.0).double()
    identity = torch.eye(3, dtype=torch.float64, device="cuda").expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(matrices), identity[:, 0, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["scaling", "whitening"])
def test_calibration_is_that_of_the_cpu(kind: CalibrationKind) -> None:
    """In float32, also where the encoder computes in bfloat16."""
    features = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) + 5
    layer = FeatureCalibration.of(fit_calibration(features.numpy(), np.arange(64) % 4, kind), kind)
    expected = layer(features)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = layer.cuda()(features.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
