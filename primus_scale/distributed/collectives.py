"""Communication between ranks; one rank alone gets back what it gave.

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

_FLAG_S = 5.0  # between two collectives while ranks wait; far below any timeout of a collective

# Exceptions that keep their kind on the other ranks; all others become RuntimeError. The first kind
# that fits is taken, so the two subclasses of OSError come before it.
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ConnectionError, TimeoutError, OSError, ValueError, RuntimeError)
}


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return world_size() > 1


def rank() -> int:
    """Rank of this process, 0 without a process group."""
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
    _named("all_gather_single", "all_gather_into_tensor")(rows, local.contiguous())
    return rows


def gather_columns(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``gather`` several tensors of one type in one message: ``(B, ...)`` -> ``(N, ...)`` each.

    The results are views of one matrix, so their rows are not contiguous.
    """
    if not is_distributed() or not tensors:
        return [tensor.detach() for tensor in tensors]
    flat = [tensor.detach().reshape(len(tensor), -1) for tensor in tensors]
    columns = gather(torch.cat(flat, dim=1)).split([each.shape[1] for each in flat], dim=1)
    return [
        column.unflatten(1, tensor.shape[1:]) if tensor.ndim > 1 else column[:, 0]
        for column, tensor in zip(columns, tensors, strict=True)
    ]


def gather_with_grad(local: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks in rank order, with gradient: ``(B, D)`` -> ``(N, D)``.

    The gradient of a rank's rows is the sum of the gradients of all ranks' losses. So the average
    of parameter gradients over ranks is the gradient of the mean of the ranks' losses.
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
    """Wait until every rank has called this."""
    if is_distributed():
        pulse.at("barrier")
        dist.barrier()


def broadcast_json(value: Any) -> Any:
    """Rank 0's ``value`` on every rank, sent as JSON. Nothing is pickled."""
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
    """Every rank's ``value``, in rank order, on every rank, sent as JSON."""
    if not is_distributed():
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode("utf-8")), dtype=torch.uint8)
    lengths = gather(torch.tensor([len(text)], device=message_device())).tolist()
    row = torch.zeros(1, max(lengths), dtype=torch.uint8, device=message_device())
    row[0, : len(text)] = text
    rows = gather(row).cpu().numpy()
    return [json.loads(rows[number, :length].tobytes()) for number, length in enumerate(lengths)]


def message_device() -> str:
    """The device for tensors that hold messages: the CPU, if the process group can send from it.

    A process group with NCCL only, made by another library, sends from the GPU only.
    """
    return "cuda" if _is_up() and dist.get_backend() == "nccl" else "cpu"


def on_first_rank(action: Callable[[], Any]) -> Any:
    """Run ``action`` on rank 0 only, and return its value, sent as JSON, on every rank.

    For a short ``action``: the others wait in one collective (``on_all_ranks`` is for long ones).
    An exception on rank 0 is raised on every rank; otherwise the others would wait for rank 0. They
    raise ConnectionError, TimeoutError, OSError, ValueError or RuntimeError with its message.
    """
    outcome, raised = _outcome(action) if rank() == 0 else ({}, None)
    outcome = broadcast_json(outcome)
    _raise_failure([outcome], raised)
    return outcome["value"]


def on_all_ranks(action: Callable[[], Any]) -> list[Any]:
    """Run ``action`` on every rank; return the values of all ranks, in rank order, on every rank.

    Values and exceptions as with ``on_first_rank``. ``action`` may take long (copy, hash, convert
    files), or do nothing on some ranks. It runs in a thread, and must not communicate with other
    ranks. Meanwhile the ranks exchange a flag every few seconds, so that no collective waits until
    it times out.
    """
    if not is_distributed():
        outcome, raised = _outcome(action)
        _raise_failure([outcome], raised)
        return [outcome["value"]]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="primus-action") as executor:
        running = executor.submit(_outcome, action)
        while not _on_every_rank(bool(wait([running], timeout=_FLAG_S).done)):
            pass
    outcome, raised = running.result()
    outcomes = gather_json(outcome)
    _raise_failure(outcomes, raised)
    return [each["value"] for each in outcomes]


def raise_together(error: Exception | None) -> None:
    """Raise ``error``, or the error of another rank, on every rank; as ``on_first_rank``."""
    outcome = {} if error is None else _failure(error)
    _raise_failure(gather_json(outcome), error)


def _on_every_rank(flag: bool) -> bool:
    count = sum_over_ranks(torch.tensor(int(flag), device=message_device()))
    return int(count) == world_size()


def _outcome(action: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
    """The value or the failure of ``action()``, ready for JSON; and the exception itself."""
    try:
        with pulse.long_work():
            return {"value": action()}, None
    except Exception as error:  # of any kind: the other ranks must not wait
        return _failure(error), error


def _failure(error: Exception) -> dict[str, Any]:
    """The failure of a rank as JSON: kind and message of its exception."""
    kinds = (name for name, kind in _KINDS.items() if isinstance(error, kind))
    return {"failed": {"kind": next(kinds, "RuntimeError"), "message": str(error)}}


def _raise_failure(outcomes: Sequence[Mapping[str, Any]], raised: Exception | None) -> None:
    """Raise the exception of this rank, or else that of the first rank that failed."""
    if raised is not None:
        raise raised
    for outcome in outcomes:
        if failed := outcome.get("failed"):
            raise _KINDS[failed["kind"]](failed["message"])


def open_store(timeout_s: float) -> dist.Store:
    """A new connection to the store of the process group, for use by one thread."""
    shared: Any = dist.distributed_c10d._get_default_store()
    store: dist.Store = shared.clone()
    store.set_timeout(timedelta(seconds=timeout_s))
    return store


def _is_up() -> bool:
    return dist.is_available() and dist.is_initialized()


def _named(name: str, before: str) -> Callable[..., Any]:
    """The function ``name`` of torch.distributed, which torch below 2.13 calls ``before``."""
    function: Callable[..., Any] = getattr(dist, name, None) or getattr(dist, before)
    return function


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: torch.Tensor) -> torch.Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        pulse.at("gradient of gather")
        mine = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
        _named("reduce_scatter_single", "reduce_scatter_tensor")(mine, grad.contiguous())
        return mine
