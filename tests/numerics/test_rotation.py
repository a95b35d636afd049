"""Rotations are in SO(3), of the asked angle, and the same for accelerometer and gyroscope."""

import math

import pytest
import torch

from primus_scale.augment import RowDraws, build_augment, rotation_matrices, step_generator
from primus_scale.config.augment import Rotation

ROWS = 5000


def draw_matrices(max_deg: float) -> torch.Tensor:
    draws = RowDraws(step_generator(0, 0, "cpu"), slice(0, ROWS), ROWS)
    return rotation_matrices(draws, max_deg).double()


def angles_deg(matrices: torch.Tensor) -> torch.Tensor:
    trace = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


@pytest.mark.parametrize("max_deg", [5.0, 30.0, 180.0])
def test_matrices_are_in_so3(max_deg: float) -> None:
    matrices = draw_matrices(max_deg)
    identity = torch.eye(3, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        torch.linalg.det(matrices), torch.ones(ROWS, dtype=torch.float64), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("max_deg", [30.0, 180.0])
def test_angles_are_uniform_up_to_the_maximum(max_deg: float) -> None:
    angles = angles_deg(draw_matrices(max_deg))
    assert angles.max() <= max_deg + 0.05
    quartiles = torch.quantile(angles / max_deg, torch.tensor([0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(
        quartiles, torch.tensor([0.25, 0.5, 0.75]).double(), rtol=0, atol=0.03
    )


def test_axes_are_uniform_on_the_sphere() -> None:
    matrices = draw_matrices(90.0)
    skew = matrices - matrices.mT
    axes = torch.stack((skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]), dim=1)
    axes = axes / axes.norm(dim=1, keepdim=True)
    assert axes.mean(dim=0).abs().max() < 0.03
    moments = axes.T @ axes / ROWS
    torch.testing.assert_close(moments, torch.eye(3).double() / 3, rtol=0, atol=0.03)


def test_axis_is_fixed_and_angle_turns_counterclockwise() -> None:
    """Each matrix equals the exponential of its axis times its angle."""
    draws = RowDraws(step_generator(0, 0, "cpu"), slice(0, 50), 50)
    axis = draws.normal(3).double()
    axis = axis / axis.norm(dim=1, keepdim=True)
    angle = draws.uniform(1, 1).double() * math.radians(120)
    cross = torch.zeros(50, 3, 3, dtype=torch.float64)
    for row in range(50):
        for column, unit in enumerate(torch.eye(3, dtype=torch.float64)):
            cross[row, :, column] = torch.linalg.cross(axis[row], unit)
    expected = torch.linalg.matrix_exp(angle * cross)
    again = RowDraws(step_generator(0, 0, "cpu"), slice(0, 50), 50)
    torch.testing.assert_close(
        rotation_matrices(again, 120.0).double(), expected, rtol=0, atol=1e-6
    )


def test_both_sensors_turn_by_the_same_matrix() -> None:
    imu = torch.randn(40, 6, 250, dtype=torch.float32)
    augment = build_augment((Rotation(max_deg=180.0),))
    view = augment(imu, step_generator(1, 2, "cpu"), slice(0, 40), 40)
    for row in range(40):
        before, after = imu[row].double(), view[row].double()
        turned = torch.linalg.lstsq(before[:3].T, after[:3].T).solution.T
        assert torch.linalg.det(turned) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(turned @ before[3:], after[3:], rtol=0, atol=1e-4)
