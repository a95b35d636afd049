"""The one shuffle: the order in which windows are packed.

Window shards lie in the order of the recordings, so that devices of one moment stand side by side
and their pictures are embedded once. In packed shards neighbours in time must not follow each
other: every window has a place drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from primus_scale.data.index import ShardEntry
from primus_scale.data.shard_set import RecordPlace, list_places


def shuffled_places(files: Sequence[ShardEntry], seed: int) -> list[RecordPlace]:
    """Every record of ``files``, in an order drawn from ``seed``."""
    places = list_places(files)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(places))
    return [places[number] for number in order]
