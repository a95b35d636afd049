"""Shard folders as one set: bad ones are refused when opened, labels and statistics are joined."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from primus_scale.data.reader import load_windows
from primus_scale.data.record import encode_block, encode_window
from primus_scale.data.shard_set import ShardSet, check_same_input
from primus_scale.storage.folder import Folder
from shards.write.verify import verify
from tests.shard_factory import (
    TEACHERS,
    edit_index,
    make_blocks,
    make_windows,
    rewrite,
    write_packed,
    write_windows,
)


@pytest.fixture
def packed(tmp_path):
    url = tmp_path / "packed"
    write_packed(str(url), make_blocks(make_windows(64)), shard_bytes=20_000)
    assert len(list(url.glob("*.tar"))) > 1
    return url


def test_missing_shard(packed):
    (packed / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"packed/shard-000001\.tar is missing.*restore it"):
        ShardSet.open(str(packed))


def test_truncated_shard(packed):
    path = packed / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"shard-000001\.tar has \d+ bytes, the index says \d+"):
        ShardSet.open(str(packed))


def test_sizes_are_told_by_one_listing(packed, monkeypatch):
    monkeypatch.setattr(Folder, "size", None)  # asking for one is an error
    assert len(ShardSet.open(str(packed)))


def test_where_nothing_is_listed_each_shard_is_asked_for(packed, monkeypatch):
    def refuse(_folder):
        raise PermissionError("listing is not allowed")

    monkeypatch.setattr(Folder, "sizes", refuse)
    assert len(ShardSet.open(str(packed)))
    (packed / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-000001\.tar is missing"):
        ShardSet.open(str(packed))


@pytest.mark.parametrize("position", [0, 600, -3000])
def test_altered_bytes(packed, position):
    path = packed / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[position if position >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)
    shard_set = ShardSet.open(str(packed))
    with pytest.raises(
        ValueError,
        match=r"shard-000000\.tar: record 0 .* primus-scale shards verify .*packed, restore",
    ):
        shard_set.read_block(0)


def test_shard_cut_while_open(packed):
    shard_set = ShardSet.open(str(packed))
    path = packed / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="is not what was written"):
        shard_set.read_block(0)


def test_no_folder():
    with pytest.raises(ValueError, match=r"data\.train"):
        ShardSet.open([])


def test_mixed_embedding_keys(packed, tmp_path):
    other = {**TEACHERS, "text": replace(TEACHERS["text"], key="another-key")}
    write_packed(
        str(tmp_path / "other"),
        make_blocks(make_windows(8, seed=1), teachers=other),
        teachers=other,
    )
    with pytest.raises(
        ValueError, match=r"packed and .*other mix text embeddings: key text-key .* another-key"
    ):
        ShardSet.open([str(packed), str(tmp_path / "other")])


@pytest.mark.parametrize("field", ["rate_hz", "window_samples", "kind", "units"])
def test_folders_must_be_alike(packed, tmp_path, field):
    other = write_other(tmp_path / "other", field)
    with pytest.raises(ValueError, match=rf"packed and .*other cannot be read as one set: {field}"):
        ShardSet.open([str(packed), other])


@pytest.mark.parametrize("field", ["rate_hz", "window_samples", "units"])
def test_windows_that_one_encoder_cannot_take(packed, tmp_path, field):
    train, other = ShardSet.open(str(packed)), ShardSet.open(write_other(tmp_path / "b", field))
    with pytest.raises(ValueError, match=rf"packed and .*b do not suit one encoder: {field} is"):
        check_same_input(train, other)


def test_an_encoder_takes_windows_of_either_kind(packed, tmp_path):
    check_same_input(ShardSet.open(str(packed)), ShardSet.open(write_other(tmp_path / "b", "kind")))


def write_other(folder, field):
    """Shards that differ from ``packed`` in one thing; returns their URL."""
    url = str(folder)
    windows = make_windows(8, seed=1, samples=20 if field == "window_samples" else 40)
    if field == "kind":
        write_windows(url, windows)
    else:
        units = {"units": ("g",) * 6} if field == "units" else {}
        write_packed(url, make_blocks(windows), **units)
    if field == "rate_hz":
        edit_index(folder, lambda tree: tree.update(rate_hz=100.0))
    return url


def test_labels_of_folders_are_joined(packed, tmp_path):
    windows = make_windows(12, seed=1)
    windows = [
        replace(w, meta=replace(w.meta, label=("run", "walk", None)[number % 3]))
        for number, w in enumerate(windows)
    ]
    labels = ("run", "walk")
    write_packed(str(tmp_path / "b"), make_blocks(windows, labels=labels), labels=labels)
    shard_set = ShardSet.open([str(packed), str(tmp_path / "b")])
    assert shard_set.labels == ("lie", "sit", "walk", "run")
    for record in range(len(shard_set)):
        block = shard_set.read_block(record)
        names = [*shard_set.labels, None]
        assert [names[label] for label in block.label] == [meta.label for meta in block.metas]


def test_a_folder_may_lack_a_modality(packed, tmp_path):
    blocks = make_blocks(make_windows(8, seed=1), teachers={})
    write_packed(str(tmp_path / "imu"), blocks, teachers={})
    shard_set = ShardSet.open([str(tmp_path / "imu"), str(packed)])
    assert shard_set.teachers == TEACHERS
    assert shard_set.windows == 72


def test_statistics_are_those_of_all_windows(packed, tmp_path):
    windows = make_windows(30, seed=1)
    windows = [replace(window, imu=3 * window.imu + 1) for window in windows]
    write_packed(str(tmp_path / "b"), make_blocks(windows))
    shard_set = ShardSet.open([str(packed), str(tmp_path / "b")])
    everything = np.stack([w.imu for w in [*make_windows(64), *windows]]).astype(np.float64)
    np.testing.assert_allclose(shard_set.mean, everything.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(shard_set.std, everything.std(axis=(0, 2)), rtol=1e-9)


def test_records_of_both_kinds_hold_the_same_windows(packed, tmp_path):
    windows = make_windows(64)
    write_windows(str(tmp_path / "windows"), windows)
    one = ShardSet.open(str(tmp_path / "windows"))
    many = ShardSet.open(str(packed))
    assert [one.read_window(record).meta for record in range(64)] == [w.meta for w in windows]
    block = many.read_block(2)
    for row in range(16):
        single = one.read_block(32 + row)
        np.testing.assert_array_equal(single.imu[0], block.imu[row])
        assert single.uid[0] == block.uid[row]
        assert single.frames == (windows[32 + row].frames,)


def column(name, change):
    """Change of a column of a block, or of that of a modality."""

    def changed(block):
        group, _, modality = name.partition(".")
        if not modality:
            return replace(block, **{name: change(getattr(block, name))})
        columns = {**getattr(block, group), modality: change(getattr(block, group)[modality])}
        return replace(block, **{group: columns})

    return changed


def without(group, modality):
    return lambda b: replace(
        b, **{group: {m: v for m, v in getattr(b, group).items() if m != modality}}
    )


def as_nan(values):
    values = values.copy()
    values[3] = np.nan
    return values


MISFITS = {
    "one channel for six": (column("imu", lambda v: v[:, :1]), r"imu is float32 \(16, 1, 40\)"),
    "fewer samples": (column("imu", lambda v: v[:, :, :-1]), r"imu is float32 \(16, 6, 39\)"),
    "one sample for all": (column("imu", lambda v: v[:, :, :1]), r"imu is float32 \(16, 6, 1\)"),
    "one window for all": (column("imu", lambda v: v[:1]), "holds 1 window, the index says 16"),
    "a surplus row": (column("uid", lambda v: np.append(v, 1)), r"uid is int64 \(17,\)"),
    "a missing row": (column("label", lambda v: v[:-1]), r"label is int64 \(15,\)"),
    "one recording for all": (column("recording", lambda v: v[:1]), r"recording is int64 \(1,\)"),
    "a missing session": (column("session", lambda v: v[:-1]), r"session is int64 \(15,\)"),
    "a column of two": (column("uid", lambda v: v[:, None]), r"uid is int64 \(16, 1\)"),
    "a label beyond": (column("label", lambda v: v + 3), "label holds ids beyond the 3 class"),
    "a label below": (column("label", lambda v: v - 5), "label holds ids beyond the 3 class"),
    "width 1": (column("embeddings.video", lambda v: v[:, :1]), "the width of teacher tiny-video"),
    "another width": (column("embeddings.text", lambda v: v[:, :4]), "teacher tiny-text"),
    "another type": (column("embeddings.text", lambda v: v.astype("f4")), "is float32"),
    "rows of embeddings": (column("embeddings.text", lambda v: v[:-1]), r"float16 \(15, 6\)"),
    "rows of a mask": (column("present.text", lambda v: v[:1]), r"present\.text is bool \(1,\)"),
    "a modality missing": (without("embeddings", "text"), r"embeddings \['video'\]"),
    "a mask missing": (without("present", "video"), r"present \['text'\]"),
    "metas of fewer": (
        lambda b: replace(b, meta_json=b"[]" + b" " * 5_000),
        r"meta\.json tells of 0 windows",
    ),
    "metas nested deeply": (
        lambda b: replace(b, meta_json=b"[" * 100_000),
        r"meta\.json: Invalid JSON: recursion limit",
    ),
    "metas without a time": (
        lambda b: replace(b, meta_json=b.meta_json.replace(b"start_s", b"starts")),
        r"meta\.json: field 0\.start_s: Field required",
    ),
    "NaN samples": (column("imu", as_nan), r"window -?\d+: imu holds NaN or infinite samples"),
    "NaN embeddings": (column("embeddings.video", as_nan), r"embeddings\.video holds NaN"),
}


@pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)
def test_a_block_that_does_not_fit_its_index(packed, change, said):
    """Bytes as the index says, and something else in them than it says.

    Blanks keep the record as long as its windows are, which the index is held to by itself.
    """
    blocks = make_blocks(make_windows(64))
    blocks[2] = change(replace(blocks[2], meta_json=blocks[2].meta_json + b" " * 20_000))
    records = [(f"block-{n:08d}", encode_block(b)) for n, b in enumerate(blocks)]
    rewrite(packed, records, windows=[16] * 4)
    shard_set = ShardSet.open(str(packed))
    assert len(shard_set.read_block(1)) == 16
    with pytest.raises(
        ValueError, match=rf"/shard-000000\.tar: record 2: .*{said}.*; find all such with primus"
    ):
        shard_set.read_block(2)
    with pytest.raises(ValueError, match=said):
        load_windows(str(packed))
    faults = verify(str(packed)).faults
    assert any(fault.startswith("shard-000000.tar record 2: ") for fault in faults)
    assert not any("record 1" in fault or "record 3" in fault for fault in faults)


def test_a_modality_that_the_index_does_not_know(packed):
    rewrite(
        packed,
        [("block-00000000", encode_block(make_blocks(make_windows(16))[0]))],
        windows=[16],
        teachers={},
    )
    with pytest.raises(
        ValueError, match=r"block has embeddings \['text', 'video'\], teachers are \[\]"
    ):
        ShardSet.open(str(packed)).read_block(0)


@pytest.mark.parametrize("claimed", [1, 15])
def test_more_windows_than_the_index_says(packed, claimed):
    rewrite(
        packed,
        [("block-00000000", encode_block(make_blocks(make_windows(16))[0]))],
        windows=[claimed],
    )
    with pytest.raises(ValueError, match=f"record 0: holds 16 windows, the index says {claimed}"):
        ShardSet.open(str(packed)).read_block(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: replace(w, imu=w.imu[:1]), r"imu is float32 \(1, 1, 40\)"),
        (lambda w: replace(w, imu=w.imu[:, :1]), r"imu is float32 \(1, 6, 1\)"),
        (lambda w: replace(w, meta=replace(w.meta, label="fly")), r"labels \['fly'\] are none of"),
        (lambda w: replace(w, meta=replace(w.meta, uid=2**63)), r"meta\.json: field uid"),
        (lambda w: replace(w, meta=replace(w.meta, start_s=float("inf"))), r"meta\.json: "),
    ],
)
def test_a_window_that_does_not_fit_its_index(tmp_path, change, said):
    windows = make_windows(6)
    write_windows(str(tmp_path), windows)
    windows[4] = change(windows[4])
    rewrite(tmp_path, [(f"{n:04d}", encode_window(w)) for n, w in enumerate(windows)])
    shard_set = ShardSet.open(str(tmp_path))
    with pytest.raises(ValueError, match=rf"/shard-000000\.tar: record 4: .*{said}"):
        shard_set.read_block(4)
    assert len([f for f in verify(str(tmp_path)).faults if "record 4" in f]) == 1


def test_the_same_folder_twice(packed, tmp_path, monkeypatch):
    """Whatever it is called: the windows would count twice."""
    (tmp_path / "link").symlink_to(packed)
    shutil.copytree(packed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    names = ("packed", "./packed/", "link", "copy", f"file://{packed}", f"{packed}/../packed")
    for name in names:
        with pytest.raises(ValueError, match="hold the same windows: 4 of 4 records are equal"):
            ShardSet.open([str(packed), name])


def test_a_folder_that_holds_part_of_another(packed, tmp_path):
    blocks = make_blocks(make_windows(64))[1:3]
    records = [(f"block-{n:08d}", encode_block(b)) for n, b in enumerate(blocks, start=1)]
    write_packed(str(tmp_path / "part"), blocks)
    rewrite(tmp_path / "part", records, windows=[16] * 2)
    with pytest.raises(ValueError, match="2 of 2 records are equal"):
        ShardSet.open([str(packed), str(tmp_path / "part")])
