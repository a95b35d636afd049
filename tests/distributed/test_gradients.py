"""The objective on 2 and 4 ranks with different data equals the single process."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from primus_scale.config import ObjectiveConfig
from primus_scale.distributed import collectives
from primus_scale.encoders.base import Embeddings, near_head
from primus_scale.objective import pairs
from primus_scale.objective.exchange import gather_batch
from primus_scale.objective.loss import primus_loss
from primus_scale.objective.model import PrimusModel
from primus_scale.objective.neighbours import find_neighbours, support_entries
from primus_scale.objective.terms import (
    initial_biases,
    temperature_configs,
    weighted_terms,
)
from primus_scale.sample import Batch
from primus_scale.support import RingSupportSet, SupportEntries, SupportSpec
from tests.gloo import Result, run_ranks

ROWS = 16
DIMS = {"video": 7, "text": 5, "imu": 6}
TEACHERS = {"video": 7, "text": 5, "signal": 8}
NEAR_DIM = 4
WITHIN, BELOW, ABOVE = -2.0, -6.0, 2.0  # log temperatures, against the bounds of the config
CASES = {
    "paper": {},
    "mean_of_neighbours": {"neighbours": {"k": 3, "combine": "mean"}, "reduction": "mean"},
    "each_neighbour": {"neighbours": {"k": 3, "combine": "each", "query": "text"}},
    "imu_asks": {"neighbours": {"query": "imu"}},
    "own_recording_left_out": {"neighbours": {"query": "imu", "exclude": "recording"}},
    "own_session_left_out": {"neighbours": {"query": "imu", "exclude": "session"}},
    "own_session_only": {"neighbours": {"k": 2, "within": "session", "combine": "each"}},
    "own_window_left_out": {"neighbours": {"k": 2, "query": "imu", "exclude": "window"}},
    "near": {"weights": {"imu_near": 2.0}, "near": {"max_s": 2.0, "exclude_s": 2.5}},
    "near_mixed": {
        "weights": {"imu_near": 0.5},
        "near": {"global_negatives": 0.3, "exclude_s": 5.0, "temperature": {"mode": "log"}},
    },
    "signal_by_regression": {"weights": {"imu_signal": 2.0}},
    "signal_by_contrast": {"weights": {"imu_signal": 2.0}, "signal": {"loss": "contrastive"}},
    "sigmoid": {"loss": "sigmoid", "bias": -2.0, "neighbours": {"k": 2, "combine": "each"}},
    "duplicates_kept": {"mask_duplicate_keys": False, "neighbours": {"query": "imu"}},
}


class TinyEncoder(nn.Module):
    """A small nonlinear encoder with every kind of head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6 * 10, 16)
        dims = DIMS | TEACHERS
        self.heads = nn.ModuleDict({name: nn.Linear(16, dim) for name, dim in dims.items()})
        self.near = near_head(16, NEAR_DIM)

    def forward(self, imu: torch.Tensor) -> Embeddings:
        features = self.body(imu.flatten(1)).tanh()
        mm = {name: self.heads[name](features) for name in TEACHERS}
        return Embeddings(features, self.heads["imu"](features), mm, self.near(features))


def make_batch(seed: int, first: int, rows: int) -> Batch:
    """Rows of a global batch of uneven content: the first 4 rows hold no video at all, some rows
    hold no teacher's embedding at all, and narrations repeat across ranks."""
    draw = torch.Generator().manual_seed(seed)
    imu = torch.randn(ROWS, 6, 10, generator=draw)
    embeddings = {m: torch.randn(ROWS, dim, generator=draw) for m, dim in TEACHERS.items()}
    embeddings["signal"] = functional.normalize(embeddings["signal"], dim=1)
    embeddings["text"][13] = embeddings["text"][2]
    embeddings["text"][9] = embeddings["text"][2]
    present = {name: torch.rand(ROWS, generator=draw) < 0.7 for name in embeddings}
    present["video"][:4] = False
    present["text"][[2, 9, 13]] = True
    for there in present.values():
        there[[6, 15]] = False
    mine = slice(first, first + rows)
    uid = torch.arange(ROWS) + 100 * seed
    return Batch(
        imu[mine],
        uid[mine],
        uid[mine] // 4,
        session_of(uid[mine]),
        torch.full((rows,), -1),
        {name: rows_[mine] * present[name][mine, None] for name, rows_ in embeddings.items()},
        {name: rows_[mine] for name, rows_ in present.items()},
        start_s=start_of(uid[mine]),
        span_s=1.5,
    )


def start_of(uid: torch.Tensor) -> torch.Tensor:
    """Four windows a recording, one each second, of 1.5 s: neighbours in time overlap."""
    return (uid % 4).double()


def session_of(uid: torch.Tensor) -> torch.Tensor:
    """Two recordings of a batch and several of the past are of one session; there are two."""
    return uid % 100 // 8 % 2


def make_support(objective: ObjectiveConfig) -> RingSupportSet:
    """A ring that has gone round, with some of the batch's own windows in it."""
    draw = torch.Generator().manual_seed(3)
    support = RingSupportSet(SupportSpec(24, DIMS, minimum_fill=4))
    uid = torch.arange(40)
    support.enqueue(
        SupportEntries(
            uid,
            uid // 4,
            session_of(uid),
            {name: torch.randn(40, dim, generator=draw) for name, dim in DIMS.items()},
            {
                "imu": torch.ones(40, dtype=torch.bool),
                "video": torch.rand(40, generator=draw) < 0.8,
                "text": torch.rand(40, generator=draw) < 0.8,
            },
            start_of(uid),
        )
    )
    return support


def all_cases(rows_at_once: int | None = None) -> Result:
    """Every case in one go, since a process takes longer to start than to do them all.

    rows_at_once: logits are computed in blocks of so many rows; None: they are kept whole.
    """
    if rows_at_once is not None:
        pairs.KEPT_PAIRS, pairs.ROWS_AT_ONCE = 0, rows_at_once
    result: Result = {}
    for case, objective in CASES.items():
        steps = two_steps(ObjectiveConfig.model_validate(objective), WITHIN)
        result |= {f"{case}/{name}": value for name, value in steps.items()}
    for start in (BELOW, ABOVE):
        steps = two_steps(ObjectiveConfig(), start)
        result |= {f"start {start}/{name}": value for name, value in steps.items()}
    return result


def two_steps(config: ObjectiveConfig, start: float) -> Result:
    """Two batches through model, neighbours, loss and ring, with losses and gradients of each."""
    torch.manual_seed(0)
    model = PrimusModel(TinyEncoder(), temperature_configs(config), initial_biases(config))
    with torch.no_grad():
        model.temperatures.value.fill_(start)
    support = make_support(config)
    rows = ROWS // collectives.world_size()
    result: Result = {}
    for seed in (1, 2):
        batch = make_batch(seed, collectives.rank() * rows, rows)
        model.zero_grad()
        output = model(torch.cat([batch.imu, batch.imu.flip(2) * 1.1]))
        view0, view1 = output.embeddings.chunk(2)
        neighbours = find_neighbours(view0, batch, support, config.neighbours)
        gathered = gather_batch(view0, batch, neighbours, config)
        loss = primus_loss(
            view0,
            view1,
            output.temperatures,
            batch,
            neighbours,
            config,
            biases=output.biases,
            gathered=gathered,
        )
        loss.total.backward()
        support.enqueue(support_entries(view0, batch, gathered))
        shares = {"total": loss.total, **{f"term.{k}": v for k, v in loss.terms.items()}}
        for name, share in shares.items():
            result[f"{seed}.{name}"] = average(share)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:  # heads of terms without weight have none
                result[f"{seed}.gradient.{name}"] = average(parameter.grad)
        result |= {f"{seed}.rows.{name}": rows for name, rows in loss.rows.items()}
        result[f"{seed}.neighbours"] = collectives.gather(neighbours.uid * neighbours.valid)
    result |= {f"ring.{name}": tensor for name, tensor in support.state_dict().items()}
    return result


def average(value: torch.Tensor) -> torch.Tensor:
    """As DeepSpeed does with gradients."""
    return collectives.sum_over_ranks(value) / collectives.world_size()


@pytest.fixture(scope="module")
def single() -> Result:
    return all_cases()


@pytest.mark.parametrize(("world", "rows_at_once"), [(2, 3), (4, None)])
def test_losses_gradients_and_ring_equal_the_single_process(world, rows_at_once, single, tmp_path):
    for result in run_ranks(all_cases, world, tmp_path, rows_at_once=rows_at_once):
        assert result.keys() == single.keys()
        for name, expected in single.items():
            scale = max(1.0, expected.double().abs().max().item())  # rounding goes with the largest
            torch.testing.assert_close(
                result[name],
                expected,
                rtol=1e-5,
                atol=2e-6 * scale,
                msg=lambda text, name=name: f"{name}: {text}",
            )


def test_the_single_process_exercises_what_is_compared(single):
    assert single["paper/2.gradient.temperatures.value"].abs().min() > 1e-4
    for case, objective in CASES.items():
        terms = weighted_terms(ObjectiveConfig.model_validate(objective))
        assert all(single[f"{case}/2.rows.{term.name}"] > 0 for term in terms)
    assert single["near/2.rows.imu_near"] == ROWS
    everyone = single["imu_asks/1.neighbours"]
    for case in ("own_session_left_out", "own_session_only"):
        assert not torch.equal(single[f"{case}/1.neighbours"][:, :1], everyone)
    assert single["each_neighbour/2.rows.neighbour_imu"] > ROWS
    for term in ("imu_text", "neighbour_imu"):  # repeated narrations, and shared neighbours
        paper, kept = (single[f"{case}/1.term.{term}"] for case in ("imu_asks", "duplicates_kept"))
        assert kept > paper + 1e-3


def exchange() -> Result:
    """Every collective, with data that tells the ranks apart."""
    rank = collectives.rank()
    told = collectives.broadcast_json({"said by": rank, "text": "naïve"} if rank == 0 else None)
    assert told == {"said by": 0, "text": "naïve"}
    local = torch.tensor([[1.0 + rank, 2.0]], requires_grad=True)
    everyone = collectives.gather_with_grad(local)
    (everyone * torch.tensor([[1.0], [10.0]]) * (rank + 1)).sum().backward()
    collectives.barrier()
    return {
        "bool": collectives.gather(torch.tensor([rank == 1, True])),
        "int64": collectives.gather(torch.tensor([2**62 + rank])),
        "float": everyone,
        "gradient": local.grad,
        "sum": collectives.sum_over_ranks(torch.tensor(rank + 1.0)),
    }


def test_collectives_keep_rank_order_and_sum_gradients(tmp_path):
    results = run_ranks(exchange, 2, tmp_path)
    for rank, result in enumerate(results):
        assert result["bool"].tolist() == [False, True, True, True]
        assert result["int64"].tolist() == [2**62, 2**62 + 1]
        assert result["float"].tolist() == [[1.0, 2.0], [2.0, 2.0]]
        assert result["sum"].item() == 3
        # rank 0's loss weighs by 1, rank 1's by 2; row r of the gathered rows by 10**r
        assert result["gradient"].tolist() == [[3.0 * 10**rank] * 2]


def test_collectives_without_a_process_group_are_the_identity():
    rows = torch.tensor([[1.0, 2.0]], requires_grad=True)
    assert collectives.gather_with_grad(rows) is rows
    assert not collectives.gather(rows).requires_grad
    assert collectives.sum_over_ranks(torch.tensor(2.0)).item() == 2
    assert collectives.broadcast_json([1]) == [1]
    assert (collectives.rank(), collectives.world_size()) == (0, 1)


def fails_on_one_rank() -> Result:
    if collectives.rank() == 1:
        raise RuntimeError("broken on purpose")
    collectives.barrier()
    return {}


def test_a_failing_rank_is_told_and_no_process_is_left(tmp_path):
    with pytest.raises(AssertionError, match="broken on purpose"):
        run_ranks(fails_on_one_rank, 2, tmp_path)
