"""Communication between ranks; without a process group each function is the identity.

Every rank must call the same functions in the same order, with tensors of equal shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from primus_scale.distributed.pulse import pulse

_MEET_S = 5.0  # far below any timeout of a collective

# Kinds of exceptions that cross from one rank to another; all others become the last.
# The first that fits counts: those of a network come before OSError.
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ConnectionError, TimeoutError, OSError, ValueError, RuntimeError)
}


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return world_size() > 1


def rank() -> int:
    """Place of this process among the ranks, 0 without a process group."""
    return dist.get_rank() if _is_up() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if _is_up() else 1


def gather(local: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks in rank order, without gradient: ``(B, ...)`` -> ``(N, ...)``."""
    local = local.detach()
    if not is_distributed():
        return local
    if local.dtype == torch.bool:  # not every backend carries bools
        return gather(local.to(torch.uint8)).bool()
    rows = local.new_empty((world_size() * local.shape[0], *local.shape[1:]))
    pulse.at("gather")
    dist.all_gather_into_tensor(rows, local.contiguous())
    return rows


def gather_with_grad(local: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks in rank order, through which gradients flow: ``(B, D)`` -> ``(N, D)``.

    The gradient of a rank's rows is the sum over the losses of all ranks, so that averaging
    parameter gradients over ranks gives the gradient of the mean of the ranks' losses.
    """
    return _GatherWithGrad.apply(local) if is_distributed() else local


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of the ranks' tensors, the same on every rank, without gradient."""
    value = value.detach()
    if is_distributed():
        value = value.clone(memory_format=torch.contiguous_format)
        pulse.at("sum_over_ranks")
        dist.all_reduce(value)
    return value


def barrier() -> None:
    """Wait until every rank has come here."""
    if is_distributed():
        pulse.at("barrier")
        dist.barrier()


def broadcast_json(value: Any) -> Any:
    """Rank 0's ``value`` on every rank; it must survive JSON. Nothing is pickled."""
    if not is_distributed():
        return value
    pulse.at("broadcast")
    device = message_device()
    text = json.dumps(value).encode("utf-8") if rank() == 0 else b""
    length = torch.tensor([len(text)], dtype=torch.int64, device=device)
    dist.broadcast(length, src=0)
    if rank() == 0:
        payload = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    else:
        payload = torch.empty(int(length), dtype=torch.uint8, device=device)
    dist.broadcast(payload, src=0)
    return json.loads(payload.cpu().numpy().tobytes())


def gather_json(value: Any) -> list[Any]:
    """Every rank's ``value``, in rank order, on every rank; all must survive JSON."""
    if not is_distributed():
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode("utf-8")), dtype=torch.uint8)
    lengths = gather(torch.tensor([len(text)], device=message_device())).tolist()
    row = torch.zeros(1, max(lengths), dtype=torch.uint8, device=message_device())
    row[0, : len(text)] = text
    rows = gather(row).cpu().numpy()
    return [json.loads(rows[place, :length].tobytes()) for place, length in enumerate(lengths)]


def message_device() -> str:
    """Where tensors must lie that carry no results of the model: the CPU, wherever it can send.

    A group of NCCL alone, which somebody else has made, takes tensors on the device only.
    """
    return "cuda" if _is_up() and dist.get_backend() == "nccl" else "cpu"


def on_first_rank(action: Callable[[], Any]) -> Any:
    """What ``action()`` gives on rank 0, where alone it runs, on every rank; it must survive JSON.

    An exception there is raised on every rank: one that fails alone leaves the others waiting for
    it. They raise OSError, ValueError or RuntimeError with its message.
    """
    outcome, raised = _outcome(action) if rank() == 0 else ({}, None)
    outcome = broadcast_json(outcome)
    _raise_failure([outcome], raised)
    return outcome["value"]


def on_all_ranks(action: Callable[[], Any]) -> list[Any]:
    """What ``action()`` gives on each rank, in rank order, on every rank; as ``on_first_rank``.

    ``action`` may take as long as it likes (copy, hash, convert files): meanwhile the ranks meet
    every few seconds, so that none waits in a collective for longer, which would time out. It runs
    in a thread next to that, and must not communicate with other ranks.
    """
    if not is_distributed():
        outcome, raised = _outcome(action)
        _raise_failure([outcome], raised)
        return [outcome["value"]]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="primus-action") as beside:
        running = beside.submit(_outcome, action)
        while not _on_every_rank(bool(wait([running], timeout=_MEET_S).done)):
            pass
    outcome, raised = running.result()
    outcomes = gather_json(outcome)
    _raise_failure(outcomes, raised)
    return [each["value"] for each in outcomes]


def raise_together(error: Exception | None) -> None:
    """Raise ``error``, or what another rank has brought, on every rank; as ``on_first_rank``."""
    outcome = {} if error is None else _failure(error)
    _raise_failure(gather_json(outcome), error)


def _on_every_rank(flag: bool) -> bool:
    count = sum_over_ranks(torch.tensor(int(flag), device=message_device()))
    return int(count) == world_size()


def _outcome(action: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
    """The value or the failure of ``action()`` as other ranks are told of it; the exception."""
    try:
        with pulse.long_work():
            return {"value": action()}, None
    except Exception as error:  # of any kind, a mistake of ours as well
        return _failure(error), error


def _failure(error: Exception) -> dict[str, Any]:
    kinds = (name for name, kind in _KINDS.items() if isinstance(error, kind))
    return {"failed": {"kind": next(kinds, "RuntimeError"), "message": str(error)}}


def _raise_failure(outcomes: Sequence[Mapping[str, Any]], raised: Exception | None) -> None:
    """Raise what this rank's own action raised, or else what the first rank to fail tells."""
    if raised is not None:
        raise raised
    for outcome in outcomes:
        if failed := outcome.get("failed"):
            raise _KINDS[failed["kind"]](failed["message"])


def open_store(timeout_s: float) -> dist.Store:
    """A connection of its own to the store of the process group, to be used by one thread."""
    shared: Any = dist.distributed_c10d._get_default_store()
    store: dist.Store = shared.clone()
    store.set_timeout(timedelta(seconds=timeout_s))
    return store


def _is_up() -> bool:
    return dist.is_available() and dist.is_initialized()


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: torch.Tensor) -> torch.Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        pulse.at("gradient of gather")
        mine = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
        dist.reduce_scatter_tensor(mine, grad.contiguous())
        return mine
