"""Decode files that another program wrote: every error of a decoder becomes one kind of error.

    with decoding(source.locate(path), "row group 3"):
        table = parquet.read_row_group(3)

Decoders (numpy, Pillow, json, safetensors, yaml, zipfile, PyAV, ...) raise many kinds of errors for
damaged or forged bytes: RecursionError, OverflowError, MemoryError, struct.error, KeyError, and
their own. None of these names the file, and none says that the fault is in the file and not in
this program. ``DamagedInputError`` does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

MAX_PICTURE_PIXELS = 2**26  # twice an 8K film's; decoded to RGB it takes 200 MB
_LONGEST_REASON = 300  # characters of a library's message; some quote the file's content


class DamagedInputError(ValueError):
    """The bytes of a file cannot be decoded; the message names the file and the part."""


@contextmanager
def decoding(
    place: str, part: str = "", *, advice: str = "", in_memory: bool = False
) -> Iterator[None]:
    """Turn the errors that the block raises for damaged bytes into a DamagedInputError.

    place, part: the file and the part of it that is decoded (a record, a member), for the message.
    advice: the next step. in_memory: all bytes are in memory, so that an OSError comes from the
    decoder (Pillow and gzip raise it for damage); otherwise an OSError comes from the storage and
    is not changed. Nor are errors that name ``place`` already, and those of missing packages.
    """
    where = f"{place}: {part}" if part else place
    passing: tuple[type[Exception], ...] = (ImportError,) if in_memory else (ImportError, OSError)
    try:
        yield
    except passing:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and place in str(error):
            raise
        step = f"; {advice}" if advice else ""
        raise DamagedInputError(f"{where}: {reason(error)}{step}") from error


def reason(error: BaseException) -> str:
    """What an error of a decoder says, in one short line, as a part of a longer message."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnidentifiedImageError):
        return "no picture"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = shorten(_message(error))
    if isinstance(error, ValueError | OSError) and text:
        return text  # a sentence; messages of other kinds are fragments, such as a key
    return f"{type(error).__name__} {text}".strip()


def shorten(text: str) -> str:
    """``text`` on one line, cut after ``_LONGEST_REASON`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):  # its own text has several lines and a web address
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        return f"field {field}: {problem['msg']}" if field else str(problem["msg"])
    return str(error)


def parse_json(data: bytes | str, place: str, part: str = "", *, advice: str = "") -> Any:
    """The value of JSON ``data``; DamagedInputError naming ``place`` where it is not JSON."""
    with decoding(place, part, advice=advice, in_memory=True):
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedInputError(f"no JSON ({error})") from None


def decode_picture(data: bytes, place: str, part: str = "") -> Image.Image:
    """The RGB picture of JPEG bytes, decoded completely.

    DamagedInputError where the bytes are no JPEG or are cut short, or where the picture has more
    than MAX_PICTURE_PIXELS.
    """
    with (
        decoding(place, part, in_memory=True),
        Image.open(io.BytesIO(data), formats=("JPEG",)) as picture,
    ):
        width, height = picture.size
        if width * height > MAX_PICTURE_PIXELS:
            raise DamagedInputError(
                f"a picture of {width} x {height} pixels, more than {MAX_PICTURE_PIXELS:,}"
            )
        return picture.convert("RGB")
