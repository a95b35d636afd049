"""Settings that a run would take without a word although they do nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

from primus_scale.config import Config
from primus_scale.objective.terms import uses_neighbours


def without_effect(config: Config, world: int) -> Iterator[str]:
    """Sentences on settings of a run on ``world`` ranks that do nothing, with the next step."""
    steps, warmup = config.train.steps, config.optimizer.warmup_steps
    if warmup >= steps:
        yield (
            f"optimizer.warmup_steps ({warmup}) is not below train.steps ({steps}), so the "
            "learning rate only rises; lower the first, or raise the second"
        )
    held, least = (steps - 1) * config.train.batch, config.support.minimum_fill
    if uses_neighbours(config.objective) and held < least:
        yield (
            f"support.minimum_fill ({least}) is not reached before the last step, so the terms of "
            f"neighbours are never computed: the steps before it give {held} windows; lower it, or "
            "set their weights to 0"
        )
    wanted = config.launch.worker_counts[-1]
    if world == 1 < config.launch.worker_counts[0]:
        yield (
            f"launch.workers ({wanted}) are started by python -m launch.ray_train; this run is one "
            "process"
        )
