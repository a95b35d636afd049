"""Examples of retrieval: a window of IMU, what belongs to it, and what is found for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from primus_scale.data.reader import LoadedWindows
from primus_scale.evaluate.draws import keyed_generator
from primus_scale.monitor.measures import ranks_of_own
from primus_scale.storage.foreign import DamagedInputError, decode_picture

EXAMPLES, FOUND = 4, 3  # windows that ask, and different answers of each
_SIDE, _QUALITY = 128, 60  # of a small picture: pixels of its longer side, and JPEG's


def find_examples(
    loaded: LoadedWindows,
    rows: np.ndarray,
    queries: torch.Tensor,
    keys: torch.Tensor,
    groups: torch.Tensor,
) -> list[dict[str, Any]]:
    """What some windows find, for JSON; empty where windows have neither pictures nor texts.

    rows ``(n,)``: of ``loaded``; queries, keys ``(n, D)``, groups ``(n,)``: see
    ``cross_modal.measure_direction``. Windows are chosen by a fixed seed. Of equal keys the first
    is shown. Each example: ``own`` window, place of its key (``rank``) and the first ``found``.
    """
    chosen = keyed_generator("examples").permutation(len(rows))[:EXAMPLES]
    own = torch.from_numpy(chosen)
    ranks = ranks_of_own(queries[own], keys, own, groups).tolist()
    examples = []
    for query, rank in zip(chosen.tolist(), ranks, strict=True):
        similarity = (keys @ queries[query]).numpy()
        firsts: dict[int, int] = {}
        for key in np.argsort(-similarity, kind="stable").tolist():
            firsts.setdefault(int(groups[key]), key)
            if len(firsts) == FOUND:
                break
        found = [
            _describe(loaded, int(rows[key])) | {"right": group == int(groups[query])}
            for group, key in firsts.items()
        ]
        examples.append({"own": _describe(loaded, int(rows[query])), "rank": rank, "found": found})
    seen = (one for example in examples for one in (example["own"], *example["found"]))
    return examples if any(one["text"] or one["picture"] for one in seen) else []


def _describe(loaded: LoadedWindows, row: int) -> dict[str, Any]:
    meta = loaded.metas[row]
    frames = loaded.batch.frames[row] if loaded.batch.frames is not None else ()
    return {
        "text": "; ".join(meta.texts),
        "label": meta.label,
        "person": f"{meta.dataset}/{meta.person}",
        "picture": _small_picture(frames),
    }


def _small_picture(frames: Sequence[bytes]) -> str | None:
    """The middle frame as a small JPEG in base64; None where there is none, or it is damaged."""
    if not frames:
        return None
    try:
        picture = decode_picture(frames[len(frames) // 2], "a frame")
    except DamagedInputError:
        return None
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
