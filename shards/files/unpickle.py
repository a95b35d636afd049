"""Reads pickles of numpy arrays without trusting them: no name is loaded but numpy's array types.

A pickle may name any function and have it called while it is read. The data sets that come as
pickles hold arrays, numbers, text, dicts, lists and tuples; whatever else a file asks for is
refused, before it is loaded.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

_LONG_TEXT = 2**16  # characters; longer ones are the contents of arrays
_PIECE_BYTES = 2**20


def _latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocols below 3 written by Python 3 hold bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected text encoding {encoding!r}")
    return text.encode("latin1")


class NumpyUnpickler(pickle._Unpickler):
    """Builds numpy arrays and plain containers; any other name is refused (UnpicklingError).

    Text of Python 2, array contents among it, is taken as latin-1. The pure-Python unpickler is
    used because it need not copy an array's content, several times its size in escapes, nor keep it
    in its memo until the end: a recording of PPG-DaLiA (2.6 h, a file of
    1.3 GB) needs 0.9 GB of memory then, not 1.2 GB.
    """

    known: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__new__,
        ("numpy._core.multiarray", "_reconstruct"): np.ndarray.__new__,
        ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
        ("numpy._core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
        ("_codecs", "encode"): _latin1,
        ("__builtin__", "set"): set,
        ("builtins", "set"): set,
    }
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    # Attributes of the base class, while it reads.
    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="latin1")
        self._stream = stream

    def find_class(self, module: str, name: str) -> Any:
        """The array type or function of ``known``."""
        try:
            return self.known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}") from None

    def _string(self) -> None:
        """Text of Python 2 as it stood in source code: a line of up to some hundred megabytes."""
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = self._stream.readline(_PIECE_BYTES)
            if not piece:
                raise EOFError("the file ends within a text")
            line += piece
        if len(line) < 3 or line[0] != line[-2] or line[0] not in b"'\"":
            raise pickle.UnpicklingError("text without quotes")
        content = codecs.escape_decode(memoryview(line)[1:-2])[0]
        del line, piece
        self.stack.append(content.decode("latin1"))

    def _memoize(self, number: int) -> None:
        """Remember the top of the stack for later opcodes, unless it is an array's content."""
        top = self.stack[-1]
        if not (isinstance(top, str | bytes) and len(top) > _LONG_TEXT):
            self.memo[number] = top

    def _put(self) -> None:
        self._memoize(int(self.readline()))

    def _binput(self) -> None:
        self._memoize(self.read(1)[0])

    def _long_binput(self) -> None:
        self._memoize(int.from_bytes(self.read(4), "little"))

    dispatch[pickle.STRING[0]] = _string
    dispatch[pickle.PUT[0]] = _put
    dispatch[pickle.BINPUT[0]] = _binput
    dispatch[pickle.LONG_BINPUT[0]] = _long_binput


def load_numpy_pickle(stream: BinaryIO, name: str) -> Any:
    """What the pickle in ``stream`` holds: numpy arrays, numbers, text, dicts, lists, tuples, sets.

    name: of the file, for messages. ValueError naming it where it is empty, truncated, no pickle,
    or asks for anything else.
    """
    try:
        return NumpyUnpickler(stream).load()
    except OSError:
        raise  # the storage failed, not the file
    except Exception as error:  # bytes that are no pickle raise almost anything
        raise ValueError(
            f"{name} is not a complete pickle of numpy arrays ({type(error).__name__}: {error}); "
            "download it again from the data set's own page"
        ) from error
