"""All ranks compute in one precision, whatever each device has."""

from pathlib import Path

import pytest
import torch

from primus_scale.distributed import precision
from primus_scale.distributed.collectives import rank
from primus_scale.distributed.precision import choose_precision
from tests.gloo import run_ranks

CPU = torch.device("cpu")


def chosen(ranks_with_bfloat16: list[int]) -> dict[str, torch.Tensor]:
    precision.has_bfloat16 = lambda device: rank() in ranks_with_bfloat16
    return {"is_bf16": torch.tensor(choose_precision("auto", CPU) == "bf16")}


@pytest.mark.parametrize(("with_bfloat16", "is_bf16"), [([0, 1], True), ([0], False), ([], False)])
def test_auto_is_bf16_where_all_ranks_have_it(
    with_bfloat16: list[int], is_bf16: bool, tmp_path: Path
) -> None:
    results = run_ranks(chosen, 2, tmp_path, ranks_with_bfloat16=with_bfloat16)
    assert [bool(result["is_bf16"]) for result in results] == [is_bf16, is_bf16]


def test_a_precision_that_is_named_is_taken() -> None:
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("fp32", CPU) == "fp32"
