"""Who is no neighbour of a window, for tests of the support set."""

from __future__ import annotations

import torch

from primus_scale.sample import Origin, fill_times, unknown_time
from primus_scale.support import Exclusion


def only_uids(uid: torch.Tensor) -> Exclusion:
    """Nothing but the windows ``uid`` ``(B,)`` themselves."""
    return Exclusion(Origin(uid, uid, uid, fill_times(unknown_time(), uid)), within_s=-1.0)
