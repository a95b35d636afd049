"""ZeRO stages 0 to 3, accumulation and the number of ranks leave the loss curve as it is."""

import json
from pathlib import Path

import pytest
import torch

from tests.integration.tiny import (
    ONE_AFTER_THE_OTHER,
    PAPER,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

STATISTICS = (  # pooled statistics, and hand-crafted features that have no weights
    "encoder.name=stacked_rnn_time",
    "encoder.pooling=stats",
    "encoder.features=handcrafted",
)
VARIANTS = {
    "stage0": (PAPER,),
    "stage1": (PAPER, "train.zero_stage=1"),
    "stage2": (PAPER, "train.zero_stage=2"),
    "stage3": (PAPER, "train.zero_stage=3"),
    "stage2_accumulated": (PAPER, "train.zero_stage=2", "train.accumulation=2"),
    "stage3_accumulated": (PAPER, "train.zero_stage=3", "train.accumulation=2"),
    "statistics": STATISTICS,
    "statistics_stage3": (*STATISTICS, "train.zero_stage=3"),
}
PLAIN = {name: "statistics" if "statistics" in name else "stage0" for name in VARIANTS}


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Loss curves of all variants, each run by the same two processes."""
    folder = tmp_path_factory.mktemp("zero")
    shards = write_shards(folder / "shards")
    files = []
    for name, overrides in VARIANTS.items():
        config = tiny_config(folder / name, shards, "train.pictures_every=100", *overrides)
        files.append(str(write_config(config, folder / f"{name}.yaml")))
    assert wait_for(start_ranks(2, ONE_AFTER_THE_OTHER, *files)) == [0, 0]
    return {name: losses(folder / name) for name in VARIANTS}


@pytest.mark.parametrize("name", [name for name, plain in PLAIN.items() if name != plain])
def test_loss_curve_is_that_of_stage_0(curves: dict[str, list[float]], name: str) -> None:
    plain = curves[PLAIN[name]]
    assert len(plain) == 6
    torch.testing.assert_close(torch.tensor(curves[name]), torch.tensor(plain), rtol=1e-5, atol=0)


def test_loss_curve_on_two_ranks_is_that_of_one(
    curves: dict[str, list[float]], tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards")
    config = tiny_config(tmp_path / "alone", shards, PAPER, "train.pictures_every=100")
    file = write_config(config, tmp_path / "alone.yaml")
    assert wait_for(start_ranks(1, ONE_AFTER_THE_OTHER, str(file))) == [0]
    torch.testing.assert_close(
        torch.tensor(losses(tmp_path / "alone")), torch.tensor(curves["stage0"]), rtol=1e-4, atol=0
    )


@pytest.mark.gpu
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_in_bf16_on_cuda_follows_fp32(tmp_path: Path, stage: int) -> None:
    shards = write_shards(tmp_path / "shards")
    files = []
    for precision in ("fp32", "bf16"):
        config = tiny_config(
            tmp_path / precision,
            shards,
            PAPER,
            "train.device=cuda",
            "train.pictures_every=100",
            f"train.precision={precision}",
            f"train.zero_stage={stage}",
        )
        files.append(str(write_config(config, tmp_path / f"{precision}.yaml")))
    assert wait_for(start_ranks(1, ONE_AFTER_THE_OTHER, *files, fresh=True)) == [0]
    assert json.loads((tmp_path / "bf16" / "train.json").read_text())["skipped_steps"] == 0
    torch.testing.assert_close(
        torch.tensor(losses(tmp_path / "bf16")),
        torch.tensor(losses(tmp_path / "fp32")),
        rtol=3e-2,
        atol=0,
    )
