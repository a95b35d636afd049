"""The identity of a run: the settings and data that must be equal for it to be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from primus_scale.config import Config
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders.card import EncoderCard

# A run may continue with other values of these; all other settings must be equal.
MAY_CHANGE = (
    "name",
    "output",
    "data.train",  # compared by content instead, so that shards may move
    "data.validation",
    "data.reader_threads",
    "data.prefetch_batches",
    "data.crc",
    "data.timeout_s",
    "data.patience_s",
    "teachers.video",  # compared by embedding key instead, so that models may move
    "teachers.text",
    "teachers.signal",
    "teachers.batch",
    "support.index",
    "support.home",
    "support.actors",
    "support.cpus_per_actor",
    "support.gpus_per_actor",
    "support.threads",
    "support.timeout_s",
    "support.synchronous",
    "train.accumulation",
    "train.steps",
    "train.device",
    "train.threads",
    "train.log_every",
    "train.validate_every",
    "train.pictures_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_nonfinite",
    "train.stuck_after_s",
    "train.storage",
    "train.take_over",
    "calibration",  # fitted when the training has ended
    "launch",
    "few_shot",
)
# Fields that checkpoints of before do not name, with the values that mean what was done then.
ADDED_LATER = {"objective.loss": "info_nce", "objective.bias": -10.0}


def run_identity(config: Config, data: ShardSet, card: EncoderCard) -> dict[str, Any]:
    """The values that must be equal for a run to be continued, by configuration key."""
    identity = _fixed_fields(config)
    indexes = "\n".join(index.digest for index in data.indexes)
    identity["data.train (content)"] = hashlib.sha256(indexes.encode()).hexdigest()
    for modality, teacher in card.teachers.items():
        identity[f"teachers.{modality} (key)"] = teacher.key
    return identity


def config_digest(config: Config) -> str:
    """A digest of the settings that must be equal, as 32 hexadecimal digits; without the data."""
    text = json.dumps(_fixed_fields(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _fixed_fields(config: Config) -> dict[str, Any]:
    """The fields that may not change, by key."""
    fields = _flatten(config.model_dump(mode="json"))
    return {
        key: value
        for key, value in fields.items()
        if not any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)
        and ADDED_LATER.get(key, object()) != value
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            fields |= _flatten(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields
