"""One process as rank 0 of many, without the others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch

from primus_scale.distributed import collectives


def pretend_ranks(world: int) -> AbstractContextManager[object]:
    """The process is rank 0 of ``world``; every message brings it its own rows, ``world`` times.

    So sizes, memory and computation are those of a rank, and losses mean nothing.
    """
    if world == 1:
        return nullcontext()
    return patch.object(collectives, "dist", _FakeGroup(world))


class _FakeGroup:
    """The calls of torch.distributed that a step's collectives make."""

    def __init__(self, world: int) -> None:
        self._world = world

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return self._world

    def all_gather_single(self, rows: torch.Tensor, local: torch.Tensor) -> None:
        for some in rows.chunk(self._world):
            some.copy_(local)

    def reduce_scatter_single(self, mine: torch.Tensor, rows: torch.Tensor) -> None:
        mine.copy_(rows[: len(mine)])

    def all_reduce(self, value: torch.Tensor) -> None:
        value *= self._world
