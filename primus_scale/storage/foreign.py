"""Bytes that others wrote: whatever a library raises over them becomes one kind of error.

    with decoding(source.locate(path), "row group 3"):
        table = parquet.read_row_group(3)

Decoders (numpy, Pillow, json, safetensors, yaml, zipfile, PyAV, ...) answer damaged or forged bytes
with whatever their code ran into: RecursionError, OverflowError, MemoryError, struct.error,
KeyError, errors of their own. None of these names the file, and none says that the file is at
fault rather than this program. ``DamagedInputError`` does.
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
_LONGEST_REASON = 300  # characters of a library's message; some quote what they were given


class DamagedInputError(ValueError):
    """Bytes of a file are not what they are said to be; the message names the file and the part."""


@contextmanager
def decoding(
    place: str, part: str = "", *, advice: str = "", in_memory: bool = False
) -> Iterator[None]:
    """Turn what the block raises over damaged bytes into a DamagedInputError.

    place, part: the file and what of it is decoded (a record, a member), for the message. advice:
    the next step. in_memory: the bytes are all there, so that an OSError is the decoder's as well
    (Pillow and gzip raise it for damage); without it an OSError is one of the storage and passes.
    What passes besides: errors that name ``place`` already, and packages that are not installed.
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
    """One short line that tells what an error of a decoder says, for a longer message."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnidentifiedImageError):
        return "no picture"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = shorten(_message(error))
    if isinstance(error, ValueError | OSError) and text:
        return text  # written for people; the others are fragments such as a key
    return f"{type(error).__name__} {text}".strip()


def shorten(text: str) -> str:
    """``text`` on one line, and not beyond what a person reads of it."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):  # its own text has several lines and a web address
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        return f"field {field}: {problem['msg']}" if field else str(problem["msg"])
    return str(error)


def parse_json(data: bytes | str, place: str, part: str = "", *, advice: str = "") -> Any:
    """The value that JSON ``data`` holds; DamagedInputError naming ``place`` where it is none."""
    with decoding(place, part, advice=advice, in_memory=True):
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedInputError(f"no JSON ({error})") from None


def decode_picture(data: bytes, place: str, part: str = "") -> Image.Image:
    """The RGB picture of JPEG bytes, decoded whole.

    DamagedInputError where they are none, are cut, or have more than MAX_PICTURE_PIXELS.
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
