"""Statistics over time and their gradient against torch's own in float64."""

import pytest
import torch

from primus_scale.encoders.pooling import SMALLEST_VARIANCE, pool_statistics


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_statistics_and_their_gradient(dtype: torch.dtype, error: float) -> None:
    draws = torch.Generator().manual_seed(0)
    signal = torch.randn(5, 4, 33, generator=draws) * torch.tensor([1e-3, 1.0, 30.0, 1.0])[:, None]
    signal[:, 3] = 2.0  # constant
    signal = (signal + torch.tensor([0.0, -1.0, 100.0, 0.0])[:, None]).to(dtype)
    weights = torch.randn(5, 8, generator=draws)
    found, expected = signal.clone().requires_grad_(), signal.double().requires_grad_()
    pooled = pool_statistics(found)
    deviation = (expected.var(dim=2, unbiased=False) + SMALLEST_VARIANCE).log() / 2
    exact = torch.cat([expected.mean(dim=2), deviation], dim=1)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), exact, rtol=1e-6, atol=2e-5)
    (pooled * weights).sum().backward()
    (exact * weights).sum().backward()
    assert found.grad is not None and found.grad.dtype == dtype
    torch.testing.assert_close(found.grad.double(), expected.grad, rtol=error, atol=error / 10)
    with torch.no_grad():
        torch.testing.assert_close(pool_statistics(found), pooled, rtol=0, atol=0)
