"""Build the index that finds neighbours among the keys of a modality."""

from __future__ import annotations

from primus_scale.support.ivf import IvfIndex
from primus_scale.support.keys import FlatIndex, IndexKind, KeyIndex, Keys
from primus_scale.support.search import SearchBackend
from primus_scale.support.segments import SegmentIndex


def build_index(kind: IndexKind, keys: Keys, backend: SearchBackend, *, wait: bool) -> KeyIndex:
    """The index ``kind`` over ``keys``, which are in the memory of a CPU or a CUDA device.

    wait: approximate indexes are built before a search continues, so that the same calls give the
    same answers. Otherwise they are built in a thread, and searches use brute force until then.
    ValueError where the installed FAISS does not have the index on that device.
    """
    flat = FlatIndex(keys, backend)
    if kind == "flat":
        return flat
    if keys.matrix.is_cuda or kind == "cagra":
        return SegmentIndex(keys, kind, wait=wait)
    return IvfIndex(keys, wait=wait)
