"""The embedding stage: packed shards from window shards, and its commands."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.cli import main
from primus_scale.config import TeachersConfig
from primus_scale.data.index import read_index, write_index
from primus_scale.data.reader import load_windows
from primus_scale.data.record import encode_window
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import WindowMeta
from primus_scale.storage.folder import Folder
from primus_scale.teachers import build_teacher, build_teachers, embed_windows, window_samples
from shards.embed import embed as stage
from shards.embed import packing
from shards.embed.embed import embed
from shards.tasks import progress
from shards.write.shard_file import ShardRecord, write_shard
from shards.write.verify import verify
from tests.full_disk import files_limited_to
from tests.shard_factory import make_blocks, make_windows, write_packed, write_windows
from tests.teacher_models import jpeg, save_model

COUNT = 30
TEXTS = ("runs", "walks", "sits stands", "jumps jumps")


def windows():
    """Windows of which some share their frames and texts, and every fourth has none."""
    result = []
    for number, window in enumerate(make_windows(COUNT)):
        if window.frames:
            frames = (jpeg(number // 2), jpeg(100 + number // 4))
            meta = replace(window.meta, texts=(TEXTS[number % 4], TEXTS[number % 3]))
            window = replace(window, frames=frames, meta=meta)
        result.append(window)
    return result


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("clip"), "clip"))


@pytest.fixture
def source(tmp_path):
    url = str(tmp_path / "windows")
    write_windows(url, windows(), provenance={"seed": 3})
    return url


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def run(source, out, clip, **options):
    settings = {"video": clip, "text": clip, "block": 8, "threads": 2, "report": quiet}
    return embed(source, str(out), **(settings | options))


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def write_unchecked(url, windows):
    """Window shards that the writer would refuse."""
    index = write_windows(url, windows[:1])
    records = [ShardRecord(f"{n}", encode_window(window)) for n, window in enumerate(windows)]
    write_index(replace(index, shards=(write_shard(Folder(url), "bad.tar", records),)), url)


def test_every_window_is_packed_once_with_its_embeddings(source, tmp_path, clip):
    index = run(source, tmp_path / "packed", clip)
    report = verify(str(tmp_path / "packed"))
    assert report.ok, str(report)

    loaded = load_windows(str(tmp_path / "packed"))
    originals = {window.meta.uid: window for window in windows()}
    assert sorted(loaded.batch.uid.tolist()) == sorted(originals)
    ordered = [originals[uid] for uid in loaded.batch.uid.tolist()]
    np.testing.assert_array_equal(loaded.imu.numpy(), np.stack([w.imu for w in ordered]))
    assert loaded.metas == [window.meta for window in ordered]
    labels = [None if i < 0 else loaded.labels[i] for i in loaded.label.tolist()]
    assert labels == [window.meta.label for window in ordered]

    items = {"video": [w.frames for w in ordered], "text": [w.meta.texts for w in ordered]}
    for modality, rows in items.items():
        teacher = build_teacher(modality, clip, "cpu")
        expected, present = embed_windows(teacher, rows)
        assert torch.equal(loaded.batch.present[modality], present)
        torch.testing.assert_close(loaded.batch.embeddings[modality], expected, atol=5e-4, rtol=0)
        space = index.teachers[modality]
        assert (space.dim, space.key, space.space) == (teacher.dim, teacher.key, teacher.space)
        assert space.teacher == clip
    people = read_index(str(tmp_path / "windows")).provenance["people"]
    packing = {"packing_order": "sessions", "packing_seed": 0}
    assert index.provenance == {"seed": 3, "people": people, **packing}


def test_the_signal_needs_no_pictures_and_no_texts(source, tmp_path, clip):
    index = run(source, tmp_path / "packed", clip, video=None, text=None, signal="handcrafted")
    report = verify(str(tmp_path / "packed"))
    assert report.ok, str(report)
    assert report.modalities == {"imu": COUNT, "signal": COUNT}
    loaded = load_windows(str(tmp_path / "packed"))
    named = TeachersConfig(signal="handcrafted")
    teacher = build_teachers(named, index.window_format, "cpu")["signal"]
    expected, _ = embed_windows(teacher, window_samples(loaded.imu.numpy()))
    torch.testing.assert_close(loaded.batch.embeddings["signal"], expected, atol=5e-4, rtol=0)
    assert index.teachers["signal"].key == teacher.key

    beside = run(source, tmp_path / "beside", clip, signal="handcrafted")
    assert list(beside.teachers) == ["video", "text", "signal"]
    again = load_windows(str(tmp_path / "beside")).batch
    assert torch.equal(again.embeddings["signal"], loaded.batch.embeddings["signal"])


def test_records_are_parts_of_sessions_which_the_index_tells(source, tmp_path, clip):
    """Six sessions of five windows, one each 5 s: two recordings' devices at two placements."""
    index = run(source, tmp_path / "packed", clip, text=None, block=12)
    loaded = load_windows(str(tmp_path / "packed"))
    told = [part for shard in index.shards for record in shard.sessions for part in record]
    assert [len(record) for shard in index.shards for record in shard.sessions] == [2, 2, 2]
    assert [(part.windows, part.step_s) for part in told] == [(5, 5.0)] * 6
    rows = loaded.batch.session.reshape(6, 5)
    assert (rows == torch.tensor([part.session for part in told])[:, None]).all()
    assert (loaded.batch.start_s.reshape(6, 5).diff(dim=1) == 5.0).all()
    assert verify(str(tmp_path / "packed")).ok


def test_shuffled_blocks_are_of_the_size_asked_for_and_the_last_shorter(source, tmp_path, clip):
    index = run(source, tmp_path / "packed", clip, text=None, order="shuffled")
    sizes = ShardSet.open(str(tmp_path / "packed")).windows_per_record
    assert sizes.tolist() == [8, 8, 8, 6]
    assert not any(shard.sessions for shard in index.shards)
    assert index.provenance["packing_order"] == "shuffled"


@pytest.mark.parametrize("order", ["sessions", "shuffled"])
def test_order_is_drawn_from_the_seed(source, tmp_path, clip, order):
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(source, tmp_path / name, clip, video=None, seed=seed, order=order)
        orders.append(load_windows(str(tmp_path / name)).batch.uid.tolist())
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != [window.meta.uid for window in windows()]
    first = (tmp_path / "a" / "index.json").read_bytes()
    assert first == (tmp_path / "b" / "index.json").read_bytes()


def test_frames_that_windows_share_are_encoded_once(source, tmp_path, clip, monkeypatch):
    from primus_scale.teachers.hub import FrameTower

    seen = []
    encode = FrameTower.forward
    monkeypatch.setattr(
        FrameTower, "forward", lambda self, units: seen.extend(units) or encode(self, units)
    )
    monkeypatch.setattr(stage, "GROUP_WINDOWS", 10)
    run(source, tmp_path / "packed", clip, text=None)
    frames = {frame for window in windows() for frame in window.frames}
    assert sorted(seen) == sorted(frames), "groups are cut where no frame is shared"


def test_groups_are_bounded_by_their_bytes(source, tmp_path, clip, monkeypatch):
    lengths = [r.length for shard in read_index(source).shards for r in shard.records]
    monkeypatch.setattr(stage, "GROUP_BYTES", 5 * max(lengths))
    lines: list[str] = []
    run(source, tmp_path / "packed", clip, video=None, report=lines.append)
    assert lines[0] in {f"embed  30 windows  parts: {parts}" for parts in (5, 6)}


def test_shards_are_full_but_for_the_last(source, tmp_path, clip, monkeypatch):
    row = 6 * 40 * 4 + 2 * 12  # samples float32, one embedding float16
    monkeypatch.setattr(packing, "SHARD_BYTES", 8 * row + 1)
    index = run(source, tmp_path / "packed", clip, text=None, order="shuffled")
    assert [[r.windows for r in s.records] for s in index.shards] == [[8, 8], [8, 6]]
    index = run(source, tmp_path / "packed", clip, text=None, overwrite=True)
    assert [[r.windows for r in s.records] for s in index.shards] == [[5, 5], [5, 5], [5, 5]]
    assert verify(str(tmp_path / "packed")).ok


def test_shards_do_not_depend_on_threads_nor_on_how_they_are_cut(
    source, tmp_path, clip, monkeypatch
):
    monkeypatch.setattr(stage, "GROUP_WINDOWS", 7)
    for threads in (1, 3):
        run(source, tmp_path / str(threads), clip, threads=threads, batch=3)
    monkeypatch.setattr(packing, "SHARD_BYTES", 1)
    run(source, tmp_path / "cut", clip, threads=1, batch=3)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    whole, cut = load_windows(str(tmp_path / "1")).batch, load_windows(str(tmp_path / "cut")).batch
    assert torch.equal(whole.uid, cut.uid)
    assert torch.equal(whole.embeddings["video"], cut.embeddings["video"])


def test_progress_tells_windows_and_time_left(source, tmp_path, clip, monkeypatch):
    monkeypatch.setattr(stage, "GROUP_WINDOWS", 10)
    monkeypatch.setattr(progress, "REPORT_S", 0.0)
    lines: list[str] = []
    run(source, tmp_path / "packed", clip, video=None, report=lines.append)
    assert lines[0] == "embed  30 windows  parts: 3"
    assert lines[1].startswith("embed  11 of 30 windows")  # the 10th and the 11th share a frame
    assert ["left" in line for line in lines[1:4]] == [False, True, False]
    assert lines[4] == "pack  30 windows  parts: 1"


class _StoppedError(Exception):
    """The user stopped the run."""


@pytest.fixture
def stopped(source, tmp_path, clip, monkeypatch):
    """An output whose run was stopped after its first packed shard."""
    monkeypatch.setattr(stage, "GROUP_WINDOWS", 10)
    monkeypatch.setattr(packing, "SHARD_BYTES", 1)
    monkeypatch.setattr(progress, "REPORT_S", 0.0)

    def stop(line: str) -> None:
        if line.startswith("pack  5 of 30"):
            raise _StoppedError

    with pytest.raises(_StoppedError):
        run(source, tmp_path / "packed", clip, report=stop)
    assert not (tmp_path / "packed" / "index.json").exists()
    return tmp_path / "packed"


def test_a_stopped_run_goes_on_where_it_was(source, tmp_path, clip, stopped):
    run(source, tmp_path / "fresh", clip)
    work = {path.name: path.stat().st_mtime_ns for path in (stopped / ".work").glob("*.tar")}
    assert len(work) == 3
    lines: list[str] = []
    run(source, stopped, clip, report=lines.append)
    assert [line for line in lines if line.startswith("embed")][-1].startswith(
        "embed  30 of 30 windows  0 windows/s"
    ), "no group is embedded again"
    assert contents(stopped) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"block": 4},
        {"order": "shuffled"},
        {"video": None},
        {"text": "other"},
    ],
)
def test_work_of_other_settings_is_not_used(source, tmp_path, clip, stopped, options):
    if "text" in options:
        options = {"text": str(save_model(tmp_path / "other", "clip", seed=1))}
    run(source, tmp_path / "fresh", clip, **options)
    run(source, stopped, clip, **options)
    assert contents(stopped) == contents(tmp_path / "fresh")


def test_work_on_another_source_is_not_used(source, tmp_path, clip, stopped):
    changed = windows()
    changed[0] = replace(changed[0], imu=changed[0].imu + np.float32(1))
    write_windows(source, changed, overwrite=True)
    run(source, tmp_path / "fresh", clip)
    run(source, stopped, clip)
    assert contents(stopped) == contents(tmp_path / "fresh")


@pytest.mark.gpu
def test_a_gpu_gives_the_embeddings_of_the_cpu_and_equal_bytes_each_time(source, tmp_path, clip):
    run(source, tmp_path / "cpu", clip, device="cpu")
    for threads in (1, 4):
        run(source, tmp_path / str(threads), clip, device="cuda", threads=threads, batch=3)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")
    cpu, gpu = load_windows(str(tmp_path / "cpu")).batch, load_windows(str(tmp_path / "1")).batch
    for modality in ("video", "text"):
        torch.testing.assert_close(
            gpu.embeddings[modality], cpu.embeddings[modality], atol=2e-3, rtol=0
        )


def test_an_unreadable_frame_names_its_window_and_leaves_no_index(tmp_path, clip):
    bad = windows()
    bad[5] = replace(bad[5], frames=(bad[5].frames[0], bad[5].frames[0][:150]))
    url = str(tmp_path / "windows")
    write_windows(url, bad)
    with pytest.raises(ValueError, match=rf"window {bad[5].meta.uid} .* cannot be decoded"):
        run(url, tmp_path / "packed", clip)
    assert not (tmp_path / "packed" / "index.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video": None, "text": None}, "no teacher is named; give at least one"),
        ({"video": "efficientnet-lite"}, "nearest packaged one is 'efficientnet-lite0'"),
        ({"order": "time"}, "order is 'time', and none of sessions, shuffled"),
        ({"block": 0}, "block must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        (
            {"device": "cuda", "workers": 2, "gpus_per_worker": 2.0},
            "gpus_per_worker must be above 0 and at most 1",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    source, tmp_path, clip, options, message
):
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / "packed", clip, **options)
    assert not (tmp_path / "packed").exists()


def test_a_teacher_without_anything_to_embed_is_refused(tmp_path, clip):
    url = str(tmp_path / "windows")
    some = make_windows(6)
    bare = [replace(w, frames=(), meta=replace(w.meta, texts=(), frame_times_s=())) for w in some]
    write_windows(url, bare)
    for modality, others in (("video", {"text": None}), ("text", {"video": None})):
        with pytest.raises(ValueError, match=rf"no window of {url} has {modality}.*--{modality} o"):
            run(url, tmp_path / "out", clip, **others)
        assert not (tmp_path / "out/index.json").exists()
    mixed, lines = str(tmp_path / "mixed"), []
    write_windows(mixed, [*bare[:2], *some[2:]])
    run(mixed, tmp_path / "packed", clip, text=None, report=lines.append)
    counted = sum(bool(window.frames) for window in some[2:])
    assert f"video of {counted} of 6 windows; the others have none" in lines


def test_packed_shards_are_no_source(tmp_path, clip):
    url = str(tmp_path / "packed")
    write_packed(url, make_blocks(make_windows(4)))
    with pytest.raises(ValueError, match="holds packed shards, which have no frames"):
        run(url, tmp_path / "out", clip)


def test_source_and_output_must_differ(source, clip):
    with pytest.raises(ValueError, match="both source and output"):
        run(source, source + "/", clip, overwrite=True)
    assert read_index(source).windows == COUNT


def test_existing_output_needs_overwrite(source, tmp_path, clip):
    out = tmp_path / "packed"
    run(source, out, clip, video=None)
    with pytest.raises(FileExistsError, match="already holds shards"):
        run(source, out, clip, video=None)
    assert set(run(source, out, clip, text=None, overwrite=True).teachers) == {"video"}


def test_commands_embed_and_verify(source, tmp_path, clip, capsys):
    out = str(tmp_path / "packed")
    flags = ["--src", source, "--out", out, "--text", clip, "--signal", "handcrafted"]
    flags += ["--block", "16"]
    assert main(["shards", "embed", *flags]) == 0
    assert "30 windows packed" in capsys.readouterr().out
    assert main(["shards", "verify", out]) == 0
    assert "30 windows in 2 records" in capsys.readouterr().out

    assert main(["shards", "embed", *flags]) == 1
    assert "(--overwrite)" in capsys.readouterr().err

    assert main(["shards", "embed", *flags, "--order", "shuffled", "--overwrite"]) == 0
    assert read_index(out).provenance["packing_order"] == "shuffled"
    shard = next((tmp_path / "packed").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1024])
    assert main(["shards", "verify", out]) == 1
    assert "FAULT" in capsys.readouterr().out


def test_commands_answer_a_bad_flag_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["shards", "embed", "--src", "a", "--out", "b", "--vidoe", "x"])
    assert caught.value.code == 2
    assert "--video" in capsys.readouterr().err


def test_a_full_disk_names_the_output(source, tmp_path, clip):
    with (
        files_limited_to(20_000),
        pytest.raises(OSError, match=r"cannot write to .*packed/\.work: .*free space"),
    ):
        run(source, tmp_path / "packed", clip, video=None)
    assert not (tmp_path / "packed" / "index.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_says_what_to_do(source, tmp_path, clip):
    with pytest.raises(ValueError, match="PyTorch finds none on this machine; set it to cpu"):
        run(source, tmp_path / "packed", clip, device="cuda")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: replace(w, imu=w.imu * np.float32("nan")),
            r"window -?\d+ \(random/.* holds NaN or infinite",
        ),
        (lambda w: replace(w, imu=w.imu[:, 1:]), r"imu is float32 \(1, 6, 39\), expected"),
        (lambda w: make_windows(1)[0], "twice: primus-scale shards verify .* names the record"),
    ],
)
def test_bad_windows_of_other_writers_are_refused(tmp_path, clip, change, message):
    url = str(tmp_path / "windows")
    good = make_windows(3)
    write_unchecked(url, [*good[:2], change(good[2])])
    with pytest.raises(ValueError, match=message):
        run(url, tmp_path / "packed", clip, video=None)
    assert not (tmp_path / "packed" / "index.json").exists()


def test_metas_need_no_texts(tmp_path, clip):
    bare = [replace(window, frames=()) for window in make_windows(6)]
    bare = [replace(w, meta=replace(w.meta, texts=())) for w in bare]
    assert isinstance(bare[0].meta, WindowMeta)
    url = str(tmp_path / "windows")
    write_windows(url, bare)
    write_windows(str(tmp_path / "both"), [*bare[:3], *make_windows(6)[3:]])
    run(str(tmp_path / "both"), tmp_path / "packed", clip)
    batch = load_windows(str(tmp_path / "packed")).batch
    absent = np.isin(batch.uid, [window.meta.uid for window in bare[:3]])
    assert not batch.present["video"][absent].any()
    assert not batch.embeddings["text"][absent].any()
