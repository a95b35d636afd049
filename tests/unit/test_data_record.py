"""Records: encoded and decoded alike, nothing unpickled, damage refused."""

import io
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from primus_scale.data.members import decode_member, split_record
from primus_scale.data.record import (
    decode_block,
    decode_window,
    encode_block,
    encode_window,
    make_block,
    recording_id,
    session_id,
)
from tests.shard_factory import LABELS, make_blocks, make_jpeg, make_windows


def tar_bytes(members, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "elsewhere"
            archive.addfile(info, io.BytesIO(data))
        end = archive.offset
    return stream.getvalue()[:end]


def test_window_round_trip():
    window = make_windows(1)[0]
    window = replace(window, frames=tuple(make_jpeg(shade) for shade in range(103)))
    decoded = decode_window(split_record(tar_bytes(prefixed(encode_window(window))))[1])
    np.testing.assert_array_equal(decoded.imu, window.imu)
    assert decoded.meta == window.meta
    assert decoded.frames == window.frames  # in order, also beyond frame99


def prefixed(members, key="key"):
    return {f"{key}.{name}": data for name, data in members.items()}


def test_block_round_trip():
    windows = make_windows(16)
    block = make_blocks(windows)[0]
    decoded = decode_block(encode_block(block))
    for name in ("imu", "uid", "recording", "session", "label"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(block, name))
    assert decoded.embeddings.keys() == {"video", "text"}
    for modality, values in block.embeddings.items():
        assert decoded.embeddings[modality].dtype == np.float16
        np.testing.assert_array_equal(decoded.embeddings[modality], values)
        np.testing.assert_array_equal(decoded.present[modality], block.present[modality])
    assert decoded.metas == [window.meta for window in windows]


def test_tensors_are_those_of_the_safetensors_library():
    data = encode_block(make_blocks(make_windows(16))[0])["block.safetensors"]
    own, library = decode_member("block.safetensors", data), safetensors.numpy.load(data)
    assert own.keys() == library.keys()
    for name, tensor in library.items():
        assert own[name].dtype == tensor.dtype
        np.testing.assert_array_equal(own[name], tensor)


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{",
        '{"x": 1}',
        '{"x": {"dtype": "F32", "shape": [1]}}',
        '{"x": {"dtype": "U9", "shape": [1], "data_offsets": [0, 4]}}',
        '{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        '{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        '{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 3]}}',
        '{"x": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 4]}}',
    ],
)
def test_malformed_tensors(header):
    data = len(header).to_bytes(8, "little") + header.encode() + b"\0" * 4
    with pytest.raises(ValueError, match=r"block\.safetensors is damaged"):
        decode_member("block.safetensors", data)


def test_block_columns_follow_the_metas():
    windows = make_windows(16)
    block = make_blocks(windows)[0]
    names = [*LABELS, None]  # id -1 is the last
    assert [names[label] for label in block.label] == [window.meta.label for window in windows]
    assert block.uid.tolist() == [window.meta.uid for window in windows]
    assert block.recording.tolist() == [recording_id(window.meta) for window in windows]
    assert len(set(block.recording.tolist())) == 2
    assert block.session.tolist() == [session_id(window.meta) for window in windows]
    assert len(set(block.session.tolist())) == 4, "two recordings, each at two placements"


def test_a_session_is_of_one_data_set_one_device_and_one_placement():
    meta = replace(make_windows(1)[0].meta, session="worn")
    for same in ("recording", "person", "start_s", "uid"):
        assert session_id(replace(meta, **{same: type(getattr(meta, same))(5)})) == session_id(meta)
    for other in ("dataset", "session", "device", "placement"):
        assert session_id(replace(meta, **{other: "x"})) != session_id(meta)
    first, second = (replace(meta, session=s, device=d) for s, d in (("ab", "c"), ("a", "bc")))
    assert session_id(first) != session_id(second)


@pytest.mark.parametrize("session", ["", None, 3])
def test_a_window_without_a_session_is_refused(session):
    window = make_windows(1)[0]
    members = encode_window(replace(window, meta=replace(window.meta, session=session)))
    with pytest.raises(ValueError, match=r"meta\.json: field session"):
        decode_window(members)


def test_metas_are_parsed_only_when_asked():
    block = replace(make_blocks(make_windows(4))[0], meta_json=b"damaged")
    decoded = decode_block(encode_block(block))
    with pytest.raises(ValueError, match=r"meta\.json"):
        _ = decoded.metas


@pytest.mark.parametrize(
    ("metas", "said"),
    [
        (b'[{"start_s": 1.0}]', r"tells of 1 window, not of 7"),
        (b'[{"start": 1.0}]', r"0\.start_s: Field required"),
        (b'[{"start_s": "noon"}]', r"0\.start_s: Input should be a valid number"),
        (b"{", r"Invalid JSON"),
    ],
)
def test_start_times_that_do_not_fit_are_refused(metas, said):
    block = replace(make_blocks(make_windows(7))[0], meta_json=metas, starts=None)
    with pytest.raises(ValueError, match=rf"meta\.json.*{said}"):
        block.start_s  # noqa: B018


def test_unknown_label():
    windows = make_windows(3)
    with pytest.raises(ValueError, match=r"labels \['lie', 'sit'\] are none of \('run',\)"):
        make_block(np.stack([w.imu for w in windows]), [w.meta for w in windows], ["run"])


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a shard was unpickled",)


@pytest.mark.parametrize("name", ["x.pyd", "x.pickle", "x.pth", "x.pkl", "x.tar", "noextension"])
def test_pickles_are_never_read(name):
    with pytest.raises(ValueError, match="extension is none of"):
        decode_member(name, pickle.dumps(Trap()))


def test_pickled_array_is_refused():
    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    members = encode_window(make_windows(1)[0])
    for data in (stream.getvalue(), pickle.dumps(Trap())):
        with pytest.raises(ValueError, match=r"imu\.npy is damaged"):
            decode_window({**members, "imu.npy": data})


@pytest.mark.parametrize(
    ("member", "data", "said"),
    [
        ("imu.npy", None, r"no member imu\.npy"),
        ("imu.npy", b"", r"imu\.npy is damaged"),
        ("meta.json", b"{", r"meta\.json"),
        ("meta.json", b'{"uid": 1}', r"meta\.json: field dataset: Field required"),
        ("frame00.jpg", b"GIF89a", r"frame00\.jpg is damaged: no JPEG"),
        ("extra.npy", b"", r"extra\.npy does not belong"),
    ],
)
def test_damaged_window(member, data, said):
    members = encode_window(make_windows(1)[0])
    members[member] = data
    with pytest.raises(ValueError, match=said):
        decode_window({name: value for name, value in members.items() if value is not None})


@pytest.mark.parametrize("cut", [0, 4, 200, -1])
def test_damaged_block(cut):
    members = encode_block(make_blocks(make_windows(4))[0])
    members["block.safetensors"] = members["block.safetensors"][:cut]
    with pytest.raises(ValueError, match=r"block\.safetensors is damaged"):
        decode_block(members)


def test_record_of_two_keys_is_refused():
    with pytest.raises(ValueError, match=r"hold the records \['a', 'b'\]"):
        split_record(tar_bytes({"a.json": b"{}", "b.json": b"{}"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE])
def test_only_regular_files(kind):
    with pytest.raises(ValueError, match="not a regular file"):
        split_record(tar_bytes({"a.json": b""}, kind))


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"\0" * 1024, b"x" * 1024])
def test_no_tar(data):
    with pytest.raises(ValueError, match=r"no valid tar header|has no member"):
        split_record(data)
