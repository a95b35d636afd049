"""The encoder run in several passes gives the gradient of plain autograd on the whole batch."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from primus_scale.config import Config, TrainConfig
from primus_scale.distributed.group import Runtime, start_runtime, stop_runtime
from primus_scale.encoders import build_encoder
from primus_scale.engine.engine import Engine
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.model import PrimusModel
from primus_scale.objective.terms import temperature_configs
from primus_scale.sample import Batch
from primus_scale.support import Neighbours
from primus_scale.train.step import OnePass, SeveralPasses
from tests.integration.tiny import tiny_config

ROWS = 12
DIMS = {"video": 24, "text": 16}


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = start_runtime(TrainConfig(device="cpu", threads=1))
    yield runtime
    stop_runtime(runtime)


def unit_rows(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def make_model(config: Config) -> PrimusModel:
    encoder = build_encoder(
        config.encoder,
        channels=6,
        samples=250,
        rate_hz=50.0,
        teacher_dims=DIMS,
        shared=False,
        mean=(0.0,) * 6,
        std=(1.0,) * 6,
    )
    return PrimusModel(encoder, temperature_configs(config.objective))


def make_batch() -> Batch:
    present = {"video": torch.rand(ROWS) < 0.7, "text": torch.rand(ROWS) < 0.5}
    return Batch(
        imu=torch.randn(ROWS, 6, 250),
        uid=torch.arange(ROWS),
        recording=torch.zeros(ROWS, dtype=torch.int64),
        session=torch.zeros(ROWS, dtype=torch.int64),
        label=torch.full((ROWS,), -1),
        embeddings={name: unit_rows(ROWS, dim) for name, dim in DIMS.items()},
        present=present,
    )


def make_neighbours(config: Config) -> Neighbours:
    dims = {"imu": config.encoder.ss_dim, **DIMS}
    return Neighbours(
        uid=torch.arange(100, 100 + ROWS)[:, None],
        recording=torch.zeros(ROWS, 1, dtype=torch.int64),
        session=torch.zeros(ROWS, 1, dtype=torch.int64),
        age=torch.zeros(ROWS, 1, dtype=torch.int64),
        score=torch.zeros(ROWS, 1),
        valid=torch.rand(ROWS, 1) < 0.8,
        embeddings={name: unit_rows(ROWS, 1, dim) for name, dim in dims.items()},
        present={name: torch.ones(ROWS, 1, dtype=torch.bool) for name in dims},
    )


@pytest.mark.parametrize("encoder", ["stacked_rnn", "transformer"])
@pytest.mark.parametrize("passes", [1, 2, 3, 6])
def test_gradients_are_those_of_plain_autograd(
    tmp_path: Path, runtime: Runtime, passes: int, encoder: str
) -> None:
    torch.manual_seed(0)
    config = tiny_config(
        tmp_path,
        "unused",
        f"train.batch={ROWS}",
        f"train.accumulation={passes}",
        f"encoder.name={encoder}",
        "encoder.size=S",
    )
    model, batch, neighbours = make_model(config), make_batch(), make_neighbours(config)
    plain = copy.deepcopy(model)
    imu = torch.cat([batch.imu, torch.randn_like(batch.imu)])

    def loss_of(output):  # type: ignore[no-untyped-def]
        view0, view1 = output.embeddings.chunk(2)
        return primus_loss(
            view0, view1, output.temperatures, batch, neighbours, config.objective
        ).total

    expected = loss_of(plain(imu))
    expected.backward()

    engine = Engine(model, config.train, config.optimizer, runtime)
    encoding = (OnePass if passes == 1 else SeveralPasses)(engine, imu)
    loss = loss_of(encoding.output)
    encoding.backward(loss)

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert theirs.grad is not None, name
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * scale, msg=name)
    engine.close()
