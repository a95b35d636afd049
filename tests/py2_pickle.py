"""Writes pickles as Python 2 and numpy of 2018 did (protocol 0), from the format's description.

PPG-DaLiA and WESAD come in this form; Python 3 writes text and bytes otherwise, in any protocol.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def dumps(value: Any) -> bytes:
    """A whole pickle of dicts, lists, tuples, text, bytes, numbers and numeric arrays."""
    return _Writer().encode(value) + b"."


class _Writer:
    def __init__(self) -> None:
        self.memo = 0

    def encode(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, dict):
            start = b"(d" + self._put()
            return start + b"".join(
                self.encode(k) + self.encode(v) + b"s" for k, v in value.items()
            )
        if isinstance(value, list):
            return b"(l" + self._put() + b"".join(self.encode(item) + b"a" for item in value)
        if isinstance(value, str | bytes):
            raw = value.encode("latin1") if isinstance(value, str) else value
            return b"S" + repr(raw)[1:].encode("ascii") + b"\n" + self._put()
        if value is None:
            return b"N"
        return (f"F{value!r}\n" if isinstance(value, float) else f"I{value}\n").encode("ascii")

    def _put(self) -> bytes:
        self.memo += 1
        return b"p%d\n" % self.memo

    def _array(self, array: np.ndarray) -> bytes:
        shape = b"(" + b"".join(b"I%d\n" % length for length in array.shape) + b"t" + self._put()
        kind = array.dtype.str.lstrip("<|=").encode("ascii")
        dtype = (
            b"cnumpy\ndtype\n" + self._put() + b"(S'" + kind + b"'\nI0\nI1\nt" + self._put() + b"R"
            b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        )
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\nt"
            + (self._put() + b"R(I1\n" + shape + dtype + b"I00\n")
            + self.encode(np.ascontiguousarray(array).tobytes())
            + b"t"
            + self._put()
            + b"b"
        )
