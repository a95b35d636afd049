"""Whatever a decoder raises over damaged bytes is one kind of error, with file and part."""

import gzip
import io
import json
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.numpy
import yaml
from PIL import Image
from pydantic import TypeAdapter

from primus_scale.storage.foreign import DamagedInputError, decode_picture, decoding, parse_json


def jpeg(size=(8, 6)):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(stream, "JPEG")
    return stream.getvalue()


def forged_size(data, width, height):
    """A JPEG whose header claims other dimensions: they stand behind the SOF0 marker."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


DECODERS = {
    "a JSON nested deeply": lambda: json.loads("[" * 100_000),
    "a JSON of bytes that are no text": lambda: json.loads(b"\xff\xfe\xff"),
    "an npy of a shape without end": lambda: np.load(
        io.BytesIO(
            b"\x93NUMPY\x01\x00\x46\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % 10**15
            + b" " * 8
        )
    ),
    "a safetensors header cut short": lambda: safetensors.numpy.load(b"\x05"),
    "a zip that is none": lambda: zipfile.ZipFile(io.BytesIO(b"PK")),
    "a struct of too few bytes": lambda: struct.unpack("<I", b"1"),
    "a zlib stream that is none": lambda: zlib.decompress(b"1"),
    "a gzip that is none": lambda: gzip.decompress(b"1"),
    "a pickle that is none": lambda: pickle.loads(b"1"),  # noqa: S301
    "a YAML that is none": lambda: yaml.safe_load("a: [1"),
    "a key that is missing": lambda: {}["offsets"],
    "an integer too large": lambda: np.array([2**63], dtype=np.int64),
    "a model with a wrong field": lambda: TypeAdapter(list[int]).validate_python(["x" * 10_000]),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_every_decoder_s_error_is_of_one_kind(decode):
    with (
        pytest.raises(DamagedInputError, match=r"^a/b\.tar: record 3: .+; copy it again$") as found,
        decoding("a/b.tar", "record 3", advice="copy it again", in_memory=True),
    ):
        decode()
    message = str(found.value)
    assert "\n" not in message
    assert len(message) < 400


def test_what_is_not_the_decoder_s_passes():
    """Storage that fails, a package that lacks, an error that names the file by itself."""
    for error in (
        FileNotFoundError(2, "no such file"),
        ConnectionError("away"),
        ModuleNotFoundError("no h5py"),
        ValueError("a/b.tar: rate_hz must be positive"),
    ):
        with pytest.raises(type(error)) as found, decoding("a/b.tar"):
            raise error
        assert found.value is error
    with pytest.raises(KeyboardInterrupt), decoding("a/b.tar"):
        raise KeyboardInterrupt


def test_an_inner_part_is_named_behind_its_file():
    with (
        pytest.raises(DamagedInputError, match=r"^a/b\.tar: record 3: imu\.npy: KeyError 'shape'$"),
        decoding("a/b.tar", "record 3"),
        decoding("imu.npy"),
    ):
        {}["shape"]


def test_a_field_is_named_without_its_value():
    with pytest.raises(DamagedInputError) as found, decoding("m.json"):
        TypeAdapter(dict[str, int]).validate_python({"uid": "secret"})
    assert re.fullmatch(r"m\.json: field uid: Input should be a valid integer.*", str(found.value))
    assert "secret" not in str(found.value)


def test_parse_json():
    assert parse_json('{"a": [1, 2]}', "m.json") == {"a": [1, 2]}
    for text in ("{", b"\xff", "[" * 100_000, '{"a": 1' + "0" * 5_000 + "}", ""):
        with pytest.raises(DamagedInputError, match=r"^m\.json: "):
            parse_json(text, "m.json")


def test_decode_picture():
    assert decode_picture(jpeg(), "s.tar").size == (8, 6)
    for data in (b"", b"\xff\xd8\xff", jpeg()[:-40], b"%!PS-Adobe", b"GIF89a" + bytes(40)):
        with pytest.raises(DamagedInputError, match=r"^s\.tar: frame 2: "):
            decode_picture(data, "s.tar", "frame 2")


@pytest.mark.parametrize(("width", "height"), [(9_000, 9_000), (65_500, 65_500)])
def test_a_picture_that_claims_to_be_huge_takes_no_memory(width, height):
    bomb = forged_size(jpeg(), width, height)
    tracemalloc.start()
    with pytest.raises(DamagedInputError, match=r"^s\.tar: .*pixels"):
        decode_picture(bomb, "s.tar")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
