"""How many messages a step sends: each costs a round trip, however small it is."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from primus_scale.config import ObjectiveConfig, OptimizerConfig, TrainConfig
from primus_scale.distributed.collectives import rank
from primus_scale.distributed.group import start_runtime
from primus_scale.engine.engine import Engine
from primus_scale.objective.model import PrimusModel
from primus_scale.objective.terms import temperature_configs
from primus_scale.train.step import train_step
from tests.distributed.test_gradients import ROWS, TinyEncoder, make_batch, make_support
from tests.gloo import Result, run_ranks

MOST = 12  # in a step of the paper's six terms with two ranks


def steps() -> Result:
    """Two whole steps under DeepSpeed; which messages the second one sends, as text in bytes."""
    torch.manual_seed(0)
    config, objective = TrainConfig(device="cpu", batch=ROWS, threads=1), ObjectiveConfig()
    runtime = start_runtime(config)
    model = PrimusModel(TinyEncoder(), temperature_configs(objective))
    engine = Engine(model, config, OptimizerConfig(), runtime)
    support, half = make_support(objective), ROWS // 2

    def step(seed: int) -> None:
        batch = make_batch(seed, rank() * half, half)
        views = batch.imu, batch.imu.flip(2) * 1.1
        assert train_step(engine, views, batch, support, objective, 1e-3).finite

    step(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(2)
    names = [event.name for event in profile.events() if event.name.startswith("c10d::")]
    engine.close()
    return {"names": torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8)}


def test_a_step_of_two_ranks_sends_few_messages(tmp_path: Path) -> None:
    for result in run_ranks(steps, 2, tmp_path):
        names = bytes(result["names"].tolist()).decode().split("\n")
        kinds = {re.sub(r"\W|c10d", "", name) for name in names}
        assert any("gather" in kind for kind in kinds) and len(names) <= MOST, names
