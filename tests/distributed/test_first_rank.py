"""What fails on one rank fails on all."""

import hashlib
import json
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from primus_scale.distributed import collectives
from primus_scale.distributed.collectives import on_all_ranks, on_first_rank, rank
from primus_scale.distributed.group import check_own_device
from tests.gloo import run_ranks


def call_on_first_rank() -> dict[str, torch.Tensor]:
    def fail(error: Exception) -> None:
        raise error

    results: list[Any] = [on_first_rank(lambda: {"rank": rank(), "none": None})]
    for error in (FileNotFoundError(2, "no x"), ValueError("bad y"), KeyError("z")):
        try:
            on_first_rank(lambda error=error: fail(error))
        except (OSError, ValueError, RuntimeError, KeyError) as caught:
            results.append([isinstance(caught, type(error).__mro__[1]), str(caught)])
    return {"said": as_tensor(json.dumps(results))}


def call_on_all_ranks() -> dict[str, torch.Tensor]:
    def fail_on_last() -> str:
        if rank() == 1:
            raise FileNotFoundError(2, "no x")
        return "fine"

    results: list[Any] = [on_all_ranks(lambda: {"rank": rank()})]
    try:
        on_all_ranks(fail_on_last)
    except OSError as error:
        results.append(str(error))
    return {"said": as_tensor(json.dumps(results))}


def wait_for_a_slow_rank(limit_s: float, slow_s: float, store: str) -> dict[str, torch.Tensor]:
    place = {"rank": rank(), "world_size": 2, "store": dist.FileStore(store, 2)}
    dist.destroy_process_group()
    dist.init_process_group("gloo", **place, timeout=timedelta(seconds=limit_s))
    collectives._FLAG_S = limit_s / 4
    return {"slept": torch.tensor(on_all_ranks(lambda: time.sleep(slow_s * rank()) or rank()))}


def own_devices(shared: bool) -> dict[str, torch.Tensor]:
    try:
        check_own_device(hashlib.md5(str(0 if shared else rank()).encode()).hexdigest())
    except ValueError as error:
        return {"said": as_tensor(str(error))}
    return {"said": as_tensor("accepted")}


def as_tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def texts(results: list[dict[str, torch.Tensor]]) -> list[str]:
    return [bytes(result["said"].tolist()).decode() for result in results]


def test_value_and_errors_of_rank_0_are_those_of_all(tmp_path):
    for said in texts(run_ranks(call_on_first_rank, 2, tmp_path)):
        value, missing, bad, mistake = json.loads(said)
        assert value == {"rank": 0, "none": None}
        assert missing == [True, "[Errno 2] no x"]
        assert bad == [True, "bad y"]
        assert mistake[1] == "'z'"


def test_ranks_that_share_a_device_are_refused_on_all(tmp_path):
    assert texts(run_ranks(own_devices, 2, tmp_path / "own", shared=False)) == ["accepted"] * 2
    for said in texts(run_ranks(own_devices, 2, tmp_path / "shared", shared=True)):
        assert said.startswith("2 ranks find 1 GPUs, and each rank needs one of its own")


def test_each_rank_knows_what_all_have_done(tmp_path):
    for said in texts(run_ranks(call_on_all_ranks, 2, tmp_path)):
        assert json.loads(said) == [[{"rank": 0}, {"rank": 1}], "[Errno 2] no x"]


def test_action_may_take_longer_than_a_collective(tmp_path):
    arguments = {"limit_s": 3.0, "slow_s": 6.0, "store": str(tmp_path / "short")}
    for result in run_ranks(wait_for_a_slow_rank, 2, tmp_path, **arguments):
        assert result["slept"].tolist() == [0, 1]
