"""Records as an enemy, or a failing machine, would make them, by what is wrong with each.

Each record lies under an index that fits it byte by byte, so that no checksum tells.
"""

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from primus_scale.data.record import encode_block, encode_window
from tests.shard_factory import make_blocks, make_jpeg, make_windows

Members = list[tuple[str, bytes]]
BLANKS = b" " * 20_000  # keep a record as long as an index demands of its windows


def tar(members: Members, key: str = "0000000000000000") -> bytes:
    """Tar members of the record ``key``."""
    return b"".join(entry(f"{key}.{name}", data) for name, data in members)


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int = -1) -> bytes:
    """One tar member; ``size`` is what its header claims."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data) if size < 0 else size, ""
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "/etc/passwd"
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def with_size_field(member: bytes, field: bytes) -> bytes:
    """A tar member whose header has these 12 bytes for its size, and a checksum that fits."""
    header = member[:124] + field + member[136:148] + b" " * 8 + member[156:512]
    checksum = f"{sum(header):06o}\0 ".encode()
    return header[:148] + checksum + header[156:] + member[512:]


def window_members() -> dict[str, bytes]:
    return encode_window(make_windows(1)[0])


def block_members() -> dict[str, bytes]:
    return encode_block(make_blocks(make_windows(4))[0])


def npy(header: str, data: bytes = bytes(960), version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def tensors(change: Callable[[dict[str, dict[str, object]]], object]) -> bytes:
    """The tensors of a block under a header that ``change`` has altered."""
    data = block_members()["block.safetensors"]
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    altered = change(header)
    return raw_tensors(json.dumps(header if altered is None else altered), data[end:])


def raw_tensors(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def meta(**changes: object) -> bytes:
    return json.dumps({**json.loads(window_members()["meta.json"]), **changes}).encode()


def metas(**changes: object) -> bytes:
    rows = json.loads(block_members()["meta.json"])
    rows[2].update(changes)
    return json.dumps(rows).encode()


def _deep(levels: int = 100_000) -> bytes:
    return b"[" * levels


class Trap:
    """Pickled, it asks for a call when it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, ("raise SystemExit('a shard was unpickled')",)


TRAP = pickle.dumps(Trap())

ARRAYS = {
    "npz as npy": saved(lambda s: np.savez(s, imu=np.zeros((6, 40), np.float32))),
    "a pickle": TRAP,
    "an array of objects": saved(lambda s: np.save(s, np.array([None]), allow_pickle=True)),
    "a shape without end": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"
    ),
    "a negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-6, -40)}"),
    "a shape of huge numbers": npy(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 4_000},)}}"
    ),
    "a header nested deeply": npy("(" * 9_000),
    "a header that is code": npy("__import__('os').abort()"),
    "a header without end": b"\x93NUMPY\1\0\xff\xff{",
    "another version": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 40)}", version=b"\3\0"
    ),
    "columns first": saved(lambda s: np.save(s, np.asfortranarray(np.ones((6, 40), np.float32)))),
    "another type": saved(lambda s: np.save(s, np.zeros((6, 40)))),
    "another byte order": saved(lambda s: np.save(s, np.zeros((6, 40), ">f4"))),
    "a record type": saved(lambda s: np.save(s, np.zeros(6, [("a", "<f4", (40,))]))),
    "bytes too many": window_members()["imu.npy"] + b"\0",
    "bytes too few": window_members()["imu.npy"][:-1],
    "nothing": b"",
    "a number": saved(lambda s: np.save(s, np.float32(1))),
    "one channel": saved(lambda s: np.save(s, np.zeros((1, 40), np.float32))),
    "another length": saved(lambda s: np.save(s, np.zeros((6, 39), np.float32))),
    "NaN": saved(lambda s: np.save(s, np.full((6, 40), np.nan, np.float32))),
}
METAS = {
    "nested deeply": _deep(),
    "an object nested deeply": b'{"uid":' * 50_000,
    "a uid beyond 64 bits": meta(uid=2**63),
    "a uid below 64 bits": meta(uid=-(2**63) - 1),
    "a uid that is text": meta(uid="5"),
    "a uid with a fraction": meta(uid=5.5),
    "a uid of many digits": meta(uid=1).replace(b'"uid": 1', b'"uid": ' + b"1" * 10_000),
    "a uid that is true": meta(uid=True),
    "no time": meta(start_s=float("nan")),
    "a time without end": meta(start_s=1).replace(b'"start_s": 1', b'"start_s": 1e999'),
    "a label that is a number": meta(label=3),
    "a label that the index lacks": meta(label="fly"),
    "a field too many": meta(note="x"),
    "a text for texts": meta(texts="x"),
    "a list": b"[]",
    "no UTF-8": b"\xff\xfe{}",
    "UTF-16": meta().decode().encode("utf-16"),
    "nothing": b"",
    "cut": meta()[:-2],
}
PICTURES = {
    "a picture that claims 65,500 x 65,500": make_jpeg(1).replace(
        b"\x08\x00\x10\x00\x10", b"\x08\xff\xdc\xff\xdc"
    ),
    "a picture that claims 20,000 x 9,000": make_jpeg(1).replace(
        b"\x08\x00\x10\x00\x10", b"\x08\x23\x28\x4e\x20"
    ),
    "a picture that ends early": make_jpeg(1)[:-200],
    "a picture's first bytes": b"\xff\xd8\xff",
    "no JPEG": b"GIF89a" + bytes(50),
}
TENSORS: dict[str, bytes] = {
    "negative offsets": tensors(lambda h: h["uid"].update(data_offsets=[-32, -1])),
    "offsets the wrong way": tensors(lambda h: h["uid"]["data_offsets"].reverse()),
    "an offset beyond": tensors(lambda h: h["uid"].update(data_offsets=[0, 10**18])),
    "overlapping offsets": tensors(
        lambda h: h["uid"].update(data_offsets=h["label"]["data_offsets"])
    ),
    "offsets with a fraction": tensors(lambda h: h["uid"].update(data_offsets=[0.0, 32.0])),
    "three offsets": tensors(lambda h: h["uid"]["data_offsets"].append(5)),
    "a shape without end": tensors(lambda h: h["uid"].update(shape=[10**18, 10**18])),
    "a negative shape": tensors(lambda h: h["uid"].update(shape=[-1, -4])),
    "a shape of text": tensors(lambda h: h["uid"].update(shape="4")),
    "an unknown type": tensors(lambda h: h["uid"].update(dtype="U64")),
    "another type": tensors(lambda h: h["label"].update(dtype="F16", shape=[4, 4])),
    "no type": tensors(lambda h: h["uid"].pop("dtype") and None),
    "a tensor too many": tensors(lambda h: h.update(extra=dict(h["uid"]))),
    "a tensor too few": tensors(lambda h: h.pop("label") and None),
    "metadata": tensors(lambda h: h.update(__metadata__={"x": "y"})),
    "one channel": tensors(lambda h: h["imu"].update(shape=[4, 1, 240])),
    "a tensor of no name": tensors(lambda h: h.update({"": h.pop("label")}) and None),
    "a name of 100,000 characters": tensors(
        lambda h: h.update({"embeddings." + "x" * 100_000: h.pop("embeddings.text")}) and None
    ),
    "a list for a header": raw_tensors("[]"),
    "a header nested deeply": raw_tensors("[" * 100_000),
    "a header twice as long": (10**18).to_bytes(8, "little") + b"{}",
    "a pickle": TRAP,
    "nothing": b"",
    "seven bytes": bytes(7),
    "a name twice": raw_tensors(
        '{"uid":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},'
        '"uid":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}'
    ),
}
BLOCK_METAS = {
    "nested deeply": _deep(),
    "an object": b"{}",
    "none": b"[]",
    "cut": metas()[:-3],
    "no time": metas(start_s=None),
    "a time that is text": metas(start_s="1"),
    "no UTF-8": b"\xff" * 100,
}
# Training reads of metas only when windows start.
BLOCK_METAS_UNREAD = {
    "another uid": metas(uid=7),
    "a uid beyond 64 bits": metas(uid=2**63),
    "another recording": metas(recording="elsewhere"),
    "another label": metas(label="walk"),
    "a field too many": metas(note="x"),
}


def _tars() -> dict[str, bytes]:
    members = [*window_members().items()]
    whole = tar(members)
    first, rest = entry("k.imu.npy", members[0][1]), tar(members[1:], "k")
    long_name = entry("././@LongLink", b"k.imu.npy\0", tarfile.GNUTYPE_LONGNAME)
    pax = entry("k.pax", b"22 path=../../escaped\n", tarfile.XHDTYPE)
    found = {
        f"a member .{suffix}": whole + entry(f"0000000000000000.x.{suffix}", TRAP)
        for suffix in ("pickle", "pkl", "pth", "pyd", "pt", "txt", "npz", "JPG")
    }
    found |= {
        f"a member of kind {kind!r}": whole + entry("0000000000000000.x.npy", kind=kind)
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.DIRTYPE,
            tarfile.CHRTYPE,
            tarfile.FIFOTYPE,
            tarfile.CONTTYPE,
            tarfile.GNUTYPE_SPARSE,
            tarfile.AREGTYPE,
            b"Z",
        )
    }
    return found | {
        "a member twice": whole + entry("0000000000000000.imu.npy", members[0][1]),
        "a member too many": whole + entry("0000000000000000.other.npy", members[0][1]),
        "a member too few": tar(members[1:]) + bytes(512),
        "two keys": first + tar(members[1:], "l"),
        "a key that leads out": tar(members, "../../k"),
        "a key that is absolute": tar(members, "/k"),
        "a key with a backslash": tar(members, "a\\b"),
        "no key": tar(members, ""),
        "a name without a dot": first + rest + entry("k"),
        "2,000 long names": long_name * 2_000 + first + rest,
        "an extended header": pax + first + rest,
        "2,000 extended headers": pax * 2_000 + first + rest,
        "a size beyond": entry("k.imu.npy", members[0][1], size=10**9) + rest,
        "a size of all bits": with_size_field(first, b"\xff" * 12) + rest,
        "a size below 0": with_size_field(first, b"\xff" * 10 + b"\xfe\0") + rest,
        "a size of letters": with_size_field(first, b"zzzzzzzzzzzz") + rest,
        "a checksum that is wrong": first[:148] + b"000000\0 " + first[156:] + rest,
        "an end in its midst": first + bytes(1024) + rest,
        "an end behind it": whole + bytes(1024),
        "half a header behind it": whole + whole[:256],
        "no tar": b"x" * 4_096,
        "blanks": bytes(4_096),
        "a picture missing": tar([*members[:2], ("frame01.jpg", make_jpeg(1))]),
        "a picture of another name": tar([*members, ("frame1.jpg", make_jpeg(1))]),
        "a picture of Arabic digits": whole + entry("0000000000000000.frame\u0660\u0661.jpg"),
    }


def _windows(members: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    return {
        f"{name}: {what}": tar([*{**window_members(), name: data}.items()])
        for what, data in members.items()
    }


def _blocks(members: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    made = {}
    for what, data in members.items():
        block = block_members()
        if name == "block.safetensors":
            block["meta.json"] += BLANKS
        made[f"{name}: {what}"] = tar([*{**block, name: data}.items()])
    return made


# Records of one window and of a block of four that training and verify must refuse.
WINDOW_RECORDS = {
    **{f"tar: {what}": data for what, data in _tars().items()},
    **_windows(ARRAYS, "imu.npy"),
    **_windows(METAS, "meta.json"),
    **_windows({"no JPEG": PICTURES["no JPEG"]}, "frame00.jpg"),
}
BLOCK_RECORDS = {
    **_blocks(TENSORS, "block.safetensors"),
    **_blocks(BLOCK_METAS, "meta.json"),
    "tar: a member .pickle": tar([*block_members().items(), ("x.pickle", TRAP)]),
    "tar: a window's member": tar([*block_members().items(), *window_members().items()][:3]),
    "tar: a member twice": tar([*block_members().items(), *block_members().items()]),
}
# Those that verify must find, and that training does not look into (pictures until a teacher does).
UNREAD_RECORDS = {
    "window": _windows(
        {what: data for what, data in PICTURES.items() if what != "no JPEG"}, "frame00.jpg"
    ),
    "packed": {
        **_blocks(BLOCK_METAS_UNREAD, "meta.json"),
        **_blocks(
            {
                "columns swapped": tensors(
                    lambda h: {**h, "uid": h["recording"], "recording": h["uid"]}
                )
            },
            "block.safetensors",
        ),
    },
}


def damaged_windows() -> list[tuple[str, dict[str, bytes]]]:
    """Records of windows that differ in one value each; for a folder with several faults."""
    windows = make_windows(12)
    windows[3] = replace(windows[3], imu=np.full_like(windows[3].imu, np.inf))
    records = [(f"{n:016x}", encode_window(window)) for n, window in enumerate(windows)]
    records[5][1]["meta.json"] = METAS["nested deeply"]
    records[6][1]["imu.npy"] = ARRAYS["npz as npy"]
    records[8][1]["frame00.jpg"] = PICTURES["a picture that claims 65,500 x 65,500"]
    return records
