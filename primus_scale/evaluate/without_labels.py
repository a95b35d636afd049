"""What an encoder does without any label: zero-shot classification, and retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from primus_scale.config import FewShotConfig
from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.cross_modal import run_retrieval
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.evaluate.results import format_interval
from primus_scale.evaluate.zero_shot import run_zero_shot


def run_without_labels(
    encoder: nn.Module,
    card: EncoderCard,
    test: LabelledWindows,
    config: FewShotConfig,
    *,
    split: int,
    pretraining_seed: int,
) -> dict[str, Any]:
    """What is asked for: ``zero_shot`` by few_shot.prompts, ``retrieval`` by few_shot.retrieval.

    ``retrieval`` is a list of one, since those of several runs are pooled. Raises as
    ``run_zero_shot`` and ``run_retrieval``.
    """
    found: dict[str, Any] = {}
    if config.prompts:
        found["zero_shot"] = run_zero_shot(
            test, encoder, card, config.prompts, split=split, pretraining_seed=pretraining_seed
        )
    if config.retrieval:
        found["retrieval"] = [
            run_retrieval(
                encoder, card, config.retrieval, split=split, pretraining_seed=pretraining_seed
            )
        ]
    return found


def format_without_labels(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal, none where nothing was asked for."""
    if zero_shot := results.get("zero_shot"):
        counts = sorted({len(wordings) for wordings in zero_shot["prompts"].values()})
        yield (
            f"zero-shot, by {' to '.join(map(str, counts[:: max(len(counts) - 1, 1)]))} wordings "
            f"of each label: accuracy {format_interval(zero_shot['accuracy'])} %, chance "
            f"{100 * zero_shot['chance']:.1f} %"
        )
    for run in results.get("retrieval", ()):
        for direction, found in run["directions"].items():
            parts = [
                f"recall@{at} {format_interval(recall)} (chance {100 * recall['chance']:.1f})"
                for at, recall in found["recall"].items()
            ]
            yield (
                f"{direction.replace('_to_', ' to ')} among {found['windows']:,} windows, %: "
                f"{', '.join(parts)}; median rank {found['median_rank']:g} "
                f"(chance {found['median_rank_chance']:g})"
            )
