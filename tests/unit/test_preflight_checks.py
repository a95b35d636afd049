"""What the checks before a run conclude from what they measured."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.checks import memory, network, node, step, storage
from launch.checks.base import (
    FAIL,
    OK,
    WARN,
    CheckFinding,
    Context,
    GroupBrokenError,
    Watch,
    format_bytes,
)
from primus_scale.data.shard_set import ShardSet
from primus_scale.distributed.group import Runtime
from tests.integration.tiny import PAPER, TEACHERS, free_port, tiny_config, write_shards


def context_of(folder: Path, *overrides: str, nodes: tuple[str, ...] = ("a", "a", "b")) -> Context:
    """What the first of some ranks on two nodes knows."""
    config = tiny_config(folder / "out", str(folder / "shards"), *overrides)
    runtime = Runtime(rank=0, world=len(nodes), device=torch.device("cpu"), owns_group=False)
    context = Context(config, runtime, Watch(config.train.stuck_after_s))
    context.nodes = list(nodes)
    return context


def test_places_are_named_by_the_largest_unit(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    assert context.places([0, 1, 2]) == ["all"]
    assert context.places([0, 1]) == ["a"]
    assert context.places([1, 2]) == ["a rank 1", "b"]


def test_a_rank_that_leaves_can_say_why_to_another_process() -> None:
    error = GroupBrokenError([CheckFinding("step", "a rank 1", FAIL, "no space left")], rank=1)
    there = pickle.loads(pickle.dumps(error))  # noqa: S301 as Ray does it
    assert (str(there), there.findings, there.rank) == ("no space left", error.findings, 1)


def test_findings_of_one_kind_are_one_row(tmp_path: Path) -> None:
    rows = context_of(tmp_path).findings("index", FAIL, {0: "gone", 1: "gone", 2: "altered"})
    assert [(row.node, row.detail) for row in rows] == [("a", "gone"), ("b", "altered")]


@pytest.mark.parametrize(
    ("size", "text"),
    [(7_894, "7.89 kB"), (45_600_000, "45.6 MB"), (1_234e6, "1.23 GB"), (5.4321e12, "5,432 GB")],
)
def test_amounts(size: float, text: str) -> None:
    assert format_bytes(size) == text


def test_sums_and_rows_are_compared_with_what_they_must_be() -> None:
    patterns = [network.known_pattern(1000, rank) for rank in range(5)]
    total = torch.stack(patterns).sum(0)
    assert network.wrong_sum(total, 5) == ""
    total[7] += 1
    assert network.wrong_sum(total, 5) == "all-reduce gave 1 wrong sums of 1000"
    assert network.wrong_sum(sum(patterns[:4]), 5) == "all-reduce gave 875 wrong sums of 1000"
    rows = torch.stack(patterns)
    assert network.wrong_rows(rows, 5) == ""
    assert network.wrong_rows(rows[[0, 2, 1, 3, 4]], 5) == "all-gather gave 2 wrong rows of 5"
    assert network.wrong_rows(rows[:4], 5) == "all-gather gave 4 rows for 5 ranks"


def test_a_wrong_sum_fails(tmp_path: Path) -> None:
    good = {"wrong": "", "sum_s": 0.016, "gather_s": 0.008, "latency_s": 0.001}
    context = context_of(tmp_path)
    (row,) = network.judge_collectives(context, [good, good, good | {"wrong": "3 wrong sums"}])
    assert (row.result, row.node, row.detail) == (FAIL, "b", "3 wrong sums")
    (row,) = network.judge_collectives(context, [good, good | {"sum_s": 0.032}, good])
    # 16 MiB x 2 (all-reduce) x 2/3 (three ranks) in 32 ms, and x 2/3 in 8 ms.
    assert row.result == OK
    assert "all-reduce 699 MB/s, all-gather 1.4 GB/s" in row.detail


def test_clock_offset_is_that_of_the_quickest_round() -> None:
    slow = network.ClockRound(sent=10.0, received=17.0, answered=17.0, returned=12.9)
    quick = network.ClockRound(sent=20.0, received=25.01, answered=25.02, returned=20.03)
    offset, error = network.clock_offset([slow, quick])
    assert offset == pytest.approx(5.0)
    assert error == pytest.approx(0.01)


def test_skew_is_told_where_it_is_sure(tmp_path: Path) -> None:
    def readings(skew: float) -> list[list[float]]:
        return [[100.0 + skew, 100.1 + skew, 100.2 + skew]]

    context = context_of(tmp_path)
    (row,) = network.judge_clock(context, [readings(0), readings(0.01), readings(-1.05)])
    assert row.result == OK  # 1.05 s, known to 0.1 s
    (row,) = network.judge_clock(context, [readings(0), readings(0.01), readings(-2)])
    assert (row.result, row.node) == (WARN, "b")
    assert row.detail == "-2.0 s from the clock of a; set the clocks by NTP"


def versions(**changed: str) -> dict[str, Any]:
    found = {"code": "c0de", "Python": "3.11.7", "torch": "2.13", "deepspeed": "0.19", "ray": "2.6"}
    return {"commit": "0123456", "versions": found | changed, "below": []}


def test_versions_must_be_those_of_rank_0(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    (row,) = node.judge_versions(context, [versions(), versions(), versions()])
    assert row.result == OK
    assert "code c0de (0123456), Python 3.11.7, torch 2.13" in row.detail
    (row,) = node.judge_versions(context, [versions(), versions(), versions(code="0ther", new="1")])
    assert (row.result, row.node) == (FAIL, "b")
    assert "code is 0ther, on a c0de; new is 1, on a absent" in row.detail


def test_requirements_are_those_of_every_installation() -> None:
    required = {each.name: str(each.specifier) for each in node.core_requirements()}
    assert required["torch"] == ">=2.6"
    assert "faiss-cpu" not in required, "of an extra"


def device(**changed: Any) -> dict[str, Any]:
    own = {"kind": "cuda", "name": "H (80 GB)", "uuid": "", "missing": "", "gpus": 2}
    return own | {"cores": [0, 1, 2, 3], **changed}


@pytest.mark.parametrize(
    ("changed", "override", "problem"),
    [
        ({"uuid": "first"}, "train.threads=0", "several ranks compute on H (80 GB) first"),
        ({"kind": "cpu", "gpus": 0}, "train.threads=0", "other ranks have one; mend the driver"),
        ({"missing": "no CUDA device here"}, "train.threads=0", "no CUDA device here"),
        ({"gpus": 0}, "launch.gpus_per_worker=1", "launch.gpus_per_worker=1, but torch sees no"),
    ],
)
def test_devices_that_will_not_do(
    tmp_path: Path, changed: dict[str, Any], override: str, problem: str
) -> None:
    context = context_of(tmp_path, override)
    ranks = [device(uuid="first"), device(uuid="second"), device(**{"uuid": "third", **changed})]
    rows = node.judge_devices(context, ranks)
    assert {row.result for row in rows} == {FAIL}
    assert rows[-1].node == "b"
    assert problem in rows[-1].detail


def test_devices_that_are_slow_are_told(tmp_path: Path) -> None:
    ranks = [device(uuid="1"), device(uuid="2"), device(uuid="3", name="A (40 GB)")]
    a, b = node.judge_devices(context_of(tmp_path, "train.threads=3"), ranks)
    assert (a.node, a.result, b.node, b.result) == ("a", WARN, "b", WARN)
    assert "4 cores, fewer than the 6 threads" in a.detail
    assert "the slowest kind of A (40 GB), H (80 GB) sets the pace" in b.detail


def test_an_index_that_differs_fails(tmp_path: Path) -> None:
    index = {"digest": "one", "windows": 10, "shards": 1, "bytes": 1000}
    (row,) = storage.judge_index(context_of(tmp_path), [index, index, index | {"digest": "two"}])
    assert (row.node, row.result) == ("b", FAIL)
    assert "digest of the indexes is two, on a one" in row.detail


def test_output_that_is_not_shared_fails(tmp_path: Path) -> None:
    rows = storage.judge_shared(context_of(tmp_path), [[2], [2], [0, 1]])
    assert [(row.node, row.result) for row in rows] == [("a", FAIL), ("b", FAIL)]
    assert f"{tmp_path / 'out'} is not one folder for all: files of b do not show" in rows[0].detail


def test_storage_that_will_not_do_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    context = context_of(tmp_path, f"train.storage={tmp_path / 'file'}")
    with pytest.raises(OSError, match=r"cannot write to train\.storage=.*Not a directory"):
        storage.measure_output(context)
    good = context_of(tmp_path, f"train.storage={tmp_path / 'copy'}")
    storage.measure_output(good)
    assert good.shared.names() == ["rank0"], "what was put next to it to be removed is gone"


def test_validation_shards_that_do_not_answer_are_not_waited_for(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    nobody = f"http://127.0.0.1:{free_port()}/shards"
    context = context_of(tmp_path, f"data.validation=[{nobody}]")
    with pytest.raises(ConnectionError, match="has not answered for 0 s"):
        memory.measure_memory(context)


def test_checkpoints_must_fit_the_disk(tmp_path: Path) -> None:
    context = context_of(tmp_path, "train.keep_checkpoints=2")
    rank = {"seconds": 1.0, "peak": 1e9, "checkpoint": 2e9, "free": 6e9}
    assert step.judge_step(context, [rank, rank])[0].result == OK
    (row,) = step.judge_step(context, [rank, rank | {"free": 5.9e9}])
    assert row.result == FAIL
    assert "the output has 5.9 GB left, too little for 3 of them" in row.detail


def test_what_autograd_keeps_is_counted_once() -> None:
    layer = nn.Linear(10, 20)
    rows = torch.zeros(4, 10)
    kept = memory.saved_bytes(lambda: layer(rows).tanh(), without=list(layer.parameters()))
    assert kept == 4 * (4 * 10 + 4 * 20)  # the input of the layer, and the output of tanh


def test_memory_is_counted_by_part(tmp_path: Path) -> None:
    shards = ShardSet.open(write_shards(tmp_path / "shards"))
    config = context_of(tmp_path, PAPER, "support.capacity=1000000").config
    need = memory.estimate(config, shards, None, world=2)
    assert "validation" not in need.host
    parameters = 879_620
    assert need.device["weights"] == need.device["gradients"] == 4 * parameters
    assert need.device["optimiser"] == 8 * parameters
    widths = [config.encoder.ss_dim, *(teacher.dim for teacher in TEACHERS.values())]
    vectors = 1e6 * 4 * sum(widths)
    assert vectors < need.device["support set"] < vectors + 1e6 * 64  # uid, times, flags, keys
    cut = context_of(tmp_path, PAPER, "train.zero_stage=3", "train.accumulation=2").config
    thrifty = memory.estimate(cut, shards, shards, world=2)
    assert thrifty.host["validation"] == sum(each.size for each in shards.index.shards)
    quarter = context_of(tmp_path, PAPER, f"data.validation_windows={shards.windows // 4}").config
    few = memory.estimate(quarter, shards, shards, world=2)
    assert few.host["validation"] == pytest.approx(thrifty.host["validation"] / 4, rel=0.01)
    assert thrifty.device["weights"] == 2 * parameters
    assert thrifty.device["optimiser"] == 6 * parameters
    assert thrifty.device["activations"] == need.device["activations"] // 2


def test_weights_in_bfloat16_do_not_grow_with_the_batch(tmp_path: Path) -> None:
    shards = ShardSet.open(write_shards(tmp_path / "shards"))
    kept = {}
    for precision in ("bf16", "fp32"):
        config = context_of(
            tmp_path, PAPER, "train.batch=256", f"train.precision={precision}"
        ).config
        kept[precision] = memory.estimate(config, shards, None, world=1).device["activations"]
    assert kept["bf16"] < 0.7 * kept["fp32"]


def test_cached_files_count_as_free_memory_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("8000000000\n")
    (tmp_path / "memory.current").write_text("7500000000\n")
    stat = "anon 1000000000\nfile 6500000000\nactive_file 500000000\ninactive_file 6000000000\n"
    (tmp_path / "memory.stat").write_text(stat)
    assert memory.free_in_group(tmp_path) == 6_500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(ValueError, match="max"):
        memory.free_in_group(tmp_path)


def test_memory_that_is_not_there_fails(tmp_path: Path) -> None:
    need = {"device": {"support set": 5 * 10**9}, "host": {"batches ahead": 10**9}}
    first = {"need": need, "device": None, "host": 13 * 10**9}
    other = {"need": None, "device": None, "host": 7 * 10**9}
    a, b = memory.judge_memory(context_of(tmp_path), [first, first, other])
    assert (a.node, a.result, b.node, b.result) == ("a", WARN, "b", OK)
    assert "node, 2 ranks: needs 12 GB of 13 GB (support set 10 GB, batches ahead 2 GB)" in a.detail
    on_gpu = first | {"device": 4 * 10**9}
    gpu, host, *_ = memory.judge_memory(context_of(tmp_path), [on_gpu, on_gpu, on_gpu])
    assert (gpu.result, host.result) == (FAIL, OK)
    assert "GPU: needs 5 GB of 4 GB" in gpu.detail
