"""Shard folders on a real S3 server: written, streamed, trained on and verified as local ones."""

import gc

import fsspec
import numpy as np
import pytest
import torch
import webdataset

from primus_scale.config import DataConfig
from primus_scale.data.reader import ShardSet, batches, load_windows
from primus_scale.data.record import decode_window
from primus_scale.train.trainer import pretrain
from shards.demo.build import FOLDERS, build_demo
from shards.write.verify import verify
from shards.write.writer import open_output
from tests.conftest import require
from tests.integration.tiny import losses, tiny_config, write_shards
from tests.s3_server import forget_connections, s3_server
from tests.shard_factory import make_blocks, make_windows, write_packed, write_windows

WINDOWS = 100
SMALL_SHARDS = 40_000


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="module")
def folders(bucket, tmp_path_factory):
    """URLs of the same packed and window shards, locally and on the server."""
    local = str(tmp_path_factory.mktemp("local"))
    for root in (local, bucket):
        write_packed(f"{root}/packed", make_blocks(make_windows(WINDOWS)), shard_bytes=SMALL_SHARDS)
        write_windows(f"{root}/windows", make_windows(WINDOWS), shard_bytes=SMALL_SHARDS)
    return local, bucket


def read(url, **options):
    config = DataConfig(train=(url,), shuffle_blocks=2)
    options = {"batch": 24, "seed": 0, "stop_step": 10, **options}
    with batches(config, ShardSet.open(url), **options) as loader:
        return list(loader)


def test_the_same_files_are_written(folders):
    local, remote = folders
    server, _ = fsspec.core.url_to_fs(remote)
    for kind in ("packed", "windows"):
        index = ShardSet.open(f"{local}/{kind}").index
        assert ShardSet.open(f"{remote}/{kind}").index == index
        assert len(index.shards) > 1
        names = {path.rsplit("/", 1)[-1] for path in server.ls(f"{remote}/{kind}", detail=False)}
        assert names == {"index.json", *(shard.name for shard in index.shards)}


def test_the_same_batches_are_read(folders):
    local, remote = folders
    for kind, live in (("packed", False), ("windows", True)):
        for options in ({}, {"rank": 1, "world": 2}, {"start_step": 6}):
            here = read(f"{local}/{kind}", live=live, **options)
            there = read(f"{remote}/{kind}", live=live, **options)
            for a, b in zip(here, there, strict=True):
                assert torch.equal(a.imu, b.imu)
                assert torch.equal(a.uid, b.uid)
                assert a.frames == b.frames
                for modality in a.embeddings:
                    assert torch.equal(a.embeddings[modality], b.embeddings[modality])


def test_all_windows_in_memory(folders):
    local, remote = folders
    here, there = load_windows(f"{local}/packed"), load_windows(f"{remote}/packed")
    assert torch.equal(here.imu, there.imu)
    assert here.metas == there.metas


def test_training_from_the_server_gives_the_losses_of_local_shards(bucket, tmp_path):
    curves = {}
    for place, root in (("local", str(tmp_path / "shards")), ("remote", f"{bucket}/training")):
        train = write_shards(f"{root}/train")
        held_out = write_shards(f"{root}/validation", 16, seed=1)
        output = tmp_path / place
        config = tiny_config(output, train, data={"train": [train], "validation": [held_out]})
        assert pretrain(config) == 0
        curves[place] = losses(output)
        assert (output / "encoder" / "encoder.safetensors").is_file()
    assert len(curves["local"]) == 6
    assert curves["remote"] == curves["local"]


@pytest.fixture
def streamed(monkeypatch):
    """The windows of a folder on the server, read by plain WebDataset.

    WebDataset brings no s3 scheme; with one line for it, any of its readers takes our shards.
    """

    def open_s3(url, mode="rb", bufsize=8192, **options):
        return fsspec.open(url, mode).open()

    def stream(url):
        urls = [f"{url}/{shard.name}" for shard in ShardSet.open(url).index.shards]
        windows = []
        for sample in webdataset.WebDataset(urls, shardshuffle=False):
            members = {name: data for name, data in sample.items() if not name.startswith("__")}
            windows.append(decode_window(members))
        gc.collect()  # of the files that WebDataset leaves open
        return windows

    monkeypatch.setitem(webdataset.gopen_schemes, "s3", open_s3)
    return stream


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
def test_plain_webdataset_streams_from_the_server(folders, streamed):
    uids = [window.meta.uid for window in streamed(f"{folders[1]}/windows")]
    assert uids == [window.meta.uid for window in make_windows(WINDOWS)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
def test_plain_webdataset_streams_the_built_in_data(bucket, streamed):
    """Built straight onto the server, all four folders hold what our own reader finds there."""
    size = {"moments": 2, "pixels": 32, "unlabelled_hop_s": 100.0, "workers": 1}
    try:
        counts = build_demo(f"{bucket}/demo", **size, report=str)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        require(False, str(error))
    for folder in FOLDERS:
        url = f"{bucket}/demo/{folder}"
        windows = streamed(url)
        loaded = load_windows(url)
        assert len(windows) == counts[folder] > 0
        assert [window.meta for window in windows] == loaded.metas
        assert [window.frames for window in windows] == loaded.batch.frames
        for window, imu in zip(windows, loaded.imu.numpy(), strict=True):
            np.testing.assert_array_equal(window.imu, imu)


def test_verify(folders):
    report = verify(f"{folders[1]}/windows")
    assert report.ok, str(report)
    assert report.windows == WINDOWS


def test_faults_on_the_server(bucket):
    url = f"{bucket}/faulty"
    write_packed(url, make_blocks(make_windows(WINDOWS)), shard_bytes=SMALL_SHARDS)
    server, path = fsspec.core.url_to_fs(url)
    data = server.cat_file(f"{path}/shard-000001.tar")
    server.pipe_file(f"{path}/shard-000001.tar", data[:-512])
    with pytest.raises(ValueError, match=rf"shard {url}/shard-000001\.tar has \d+ bytes"):
        ShardSet.open(url)
    server.pipe_file(f"{path}/shard-000001.tar", b"\xff" * len(data))
    with pytest.raises(ValueError, match=rf"{url}/shard-000001\.tar: record \d .* is not what"):
        read(url)
    server.rm_file(f"{path}/shard-000001.tar")
    with pytest.raises(FileNotFoundError, match=r"shard-000001\.tar is missing"):
        ShardSet.open(url)
    assert verify(url).faults == ["shard-000001.tar: missing"]


def test_existing_output(folders, bucket):
    with pytest.raises(FileExistsError, match="already holds shards"):
        write_windows(f"{bucket}/windows", make_windows(4))
    assert load_windows(f"{bucket}/windows").imu.shape[0] == WINDOWS


def test_wrong_credentials(folders, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    forget_connections()
    try:
        with pytest.raises(OSError, match=r"cannot write to s3://shards/new: .*writable"):
            open_output(f"{bucket}/new")
        with pytest.raises(OSError, match=r"cannot read s3://shards/windows/index\.json"):
            ShardSet.open(f"{bucket}/windows")
    finally:
        forget_connections()


def test_missing_folder(bucket):
    with pytest.raises(FileNotFoundError, match=r"no s3://shards/nowhere/index\.json"):
        ShardSet.open(f"{bucket}/nowhere")
