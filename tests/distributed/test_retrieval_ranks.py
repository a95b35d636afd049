"""Retrieval shared out over ranks equals a loop over all windows in one process."""

from __future__ import annotations

import pytest
import torch

from primus_scale.distributed import collectives
from primus_scale.encoders.base import Embeddings
from primus_scale.monitor.retrieval import measure_retrieval
from tests.gloo import Result, run_ranks

WINDOWS, AT_ONCE = 31, 4
calls: list[int] = []


def encode(imu: torch.Tensor) -> Embeddings:
    calls.append(len(imu))
    return Embeddings(imu[:, 0], imu[:, 0], {"video": imu[:, 1], "text": imu[:, 0]})


def held_out() -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Windows that resemble their embeddings; text of 7 kinds, video of two windows only."""
    draws = torch.Generator().manual_seed(0)
    embeddings = {name: torch.randn(WINDOWS, 5, generator=draws) for name in ("video", "text")}
    embeddings["text"] = embeddings["text"][torch.arange(WINDOWS) % 7]
    imu = torch.stack([embeddings["text"], embeddings["video"]], dim=1)
    imu = imu + 0.9 * torch.randn(imu.shape, generator=draws)
    present = {"text": torch.rand(WINDOWS, generator=draws) < 0.8}
    present["video"] = torch.zeros(WINDOWS, dtype=torch.bool)
    present["video"][[3, 30]] = True
    return imu, embeddings, present


def retrieve() -> Result:
    calls.clear()
    found = measure_retrieval(encode, *held_out(), AT_ONCE)
    assert max(calls) <= AT_ONCE
    rank = {"calls": torch.tensor(len(calls)), "rank": torch.tensor(collectives.rank())}
    figures = {f"recall.{name}": value for name, value in found.recall.items()}
    figures |= {f"chance.{name}": value for name, value in found.chance.items()}
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in figures.items()} | rank


def loop() -> dict[str, float]:
    imu, embeddings, present = held_out()
    expected = {}
    for modality, channel in (("video", 1), ("text", 0)):
        rows = present[modality].nonzero()[:, 0].tolist()
        ours = {row: imu[row, channel].double() for row in rows}
        theirs = {row: embeddings[modality][row].double() for row in rows}
        alike = {i: [j for j in rows if torch.equal(theirs[i], theirs[j])] for i in rows}
        chance = sum(len(each) for each in alike.values()) / len(rows) ** 2
        for name, queries, keys in (
            (f"imu_to_{modality}", ours, theirs),
            (f"{modality}_to_imu", theirs, ours),
        ):
            best = {i: max(rows, key=lambda j: queries[i] @ keys[j] / keys[j].norm()) for i in rows}
            expected[f"recall.{name}"] = sum(best[i] in alike[i] for i in rows) / len(rows)
            expected[f"chance.{name}"] = chance
    return expected


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_has_the_answer_of_a_loop(world: int, tmp_path) -> None:
    expected = loop()
    assert 0 < expected["recall.text_to_imu"] < 1
    results = run_ranks(retrieve, world, tmp_path) if world > 1 else [retrieve()]
    assert len({int(result["calls"]) for result in results}) == 1, "ZeRO-3 needs as many on each"
    for result in results:
        for name, value in expected.items():
            assert result[name].item() == pytest.approx(value), name
