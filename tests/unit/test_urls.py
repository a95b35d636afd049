"""What is no place is refused wherever one may be given; no message repeats credentials."""

import json
import re
from pathlib import Path

import pytest

from primus_scale.checkpoint.copies import RunStorage
from primus_scale.cli import main
from primus_scale.config import FewShotConfig
from primus_scale.config_file import load_config
from primus_scale.data.index import read_index
from primus_scale.evaluate import evaluate
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience
from primus_scale.storage.urls import parse_local, parse_place, redact
from shards.demo.build import build_demo
from shards.files.source import Source
from shards.tasks.store import TaskStore

SECRET = "planted"
WITH_SECRETS = (
    f"https://user:{SECRET}@host/shards",
    f"https://{SECRET}@host/shards",
    f"s3://key:{SECRET}@bucket/shards",
    f"simplecache::http://host/shards?X-Amz-Signature={SECRET}",
    f"az://container/shards?sv=1&sig={SECRET}",
)
WITHOUT = (
    "s3://bucket/shards",
    "s3://bucket/a@b/c:d",
    "http://127.0.0.1:8080/shards",
    "abfs://container@account.dfs.core.windows.net/shards",
    "sftp://user@host/shards",
    "/data/what? user:name@home",
    "s3://bucket",
    "gs://bucket/$part",
    "simplecache::s3://bucket/x",
    "zip://a/b::s3://bucket/x.zip",
    "zip://*.csv::/data/x.zip",
    "http://[::1]:8080/x",
    "hdfs:///x",
    "file:///",
    "memory://x",
    "notes:2/P01:acc",
    "C:/x",
    "/data/$RECYCLE.BIN",
    "$5_off",
    "/",
)
NO_PLACES = (
    "",
    " ",
    "s3://",
    "s3:///",
    "s3:///shards",
    "S3://",
    "gs://",
    "az:///container",
    "http://",
    "https:///x",
    "http://:8080/x",
    "memory://",
    "file://",
    "s3:",
    "s3:bucket",
    "s3:/bucket/x",
    "gs:/bucket",
    "s3://../x",
    "s3://./x",
    "s3://$BUCKET/x",
    "s3://${BUCKET}/x",
    "s3://my-$BUCKET/x",
    "gs://{{ bucket }}/x",
    "s3://<bucket>/x",
    "s3:// /x",
    "$OUT",
    "${OUT}/shards",
    "$(pwd)/shards",
    "simplecache::s3://",
    "simplecache::s3:///x",
    "zip://a.csv::s3:///x.zip",
    "/data/a::b",
    "a::b",
    "/data\n",
)


@pytest.mark.parametrize("url", WITHOUT)
def test_other_urls_and_paths_stay_as_they_are(url: str) -> None:
    assert parse_place(url) == url


@pytest.mark.parametrize("url", NO_PLACES)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="check that every variable in it is set") as caught:
        parse_place(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("url", ["", "s3://", "s3:///shards", "gs:/bucket", "$OUT"])
def test_what_is_no_place_never_becomes_a_folder_here(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text("name: run\noutput: out\ndata: {train: [shards]}\n")
    text = json.dumps(url)
    attempts = (
        lambda: Folder(url).create(),
        lambda: Source(url),
        lambda: TaskStore(url),
        lambda: RunStorage(url, Patience()),
        lambda: build_demo(url, moments=1),
        lambda: evaluate("encoder", url, FewShotConfig(), "out"),
        lambda: load_config(file, [f"data.train=[{text}]"]),
        lambda: load_config(file, [f"train.storage={text}"]),
        lambda: load_config(file, [f"output={text}"]),
    )
    for attempt in attempts:
        with pytest.raises(ValueError, match="check that every variable in it is set"):
            attempt()
    assert list(tmp_path.iterdir()) == [file]


def test_slashes_at_the_end_are_dropped() -> None:
    places = {"s3://bucket/": "s3://bucket", "/data//": "/data", "//": "/", "a/": "a"}
    assert {place: parse_place(place) for place in places} == places


def test_a_path_of_this_machine_is_no_url() -> None:
    assert parse_local("runs/a/") == Path("runs/a")
    for place in ("s3://bucket/x", "memory://x", "s3:///x", ""):
        with pytest.raises(ValueError, match="URL"):
            parse_local(place)


@pytest.mark.parametrize("out", ["s3://bucket/x", "s3:///x", "$OUT/x", ""])
@pytest.mark.parametrize(
    "command",
    [
        "evaluate --encoder encoder --data data --out",
        "evaluate --run run --data data --out",
        "export --run run --out",
        "import-weights best_model.ckpt",
    ],
)
def test_commands_write_no_results_into_a_folder_named_like_a_url(
    command: str,
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("name: run\noutput: out\ndata: {train: [shards]}\n")
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), out]) == 1
    assert re.search("URL", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_url_with_credentials_is_refused_without_telling_them(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: run\noutput: out\ndata: {train: [shards]}\n")
    attempts = (
        lambda: parse_place(url),
        lambda: read_index(url),
        lambda: Source(url),
        lambda: load_config(file, [f"data.train=['{url}']"]),
        lambda: load_config(file, [f"data.validation=['{url}']"]),
        lambda: load_config(file, [f"train.storage='{url}'"]),
    )
    for attempt in attempts:
        with pytest.raises(ValueError, match="put them where the storage's client looks") as caught:
            attempt()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", WITH_SECRETS)
@pytest.mark.parametrize("override", ["data.train={}", "data.train=[{}", "name.deep={}", "{}"])
def test_no_message_about_an_override_repeats_them(url: str, override: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: run\noutput: out\ndata: {train: [shards]}\n")
    with pytest.raises(ValueError, match="://") as caught:
        load_config(file, [override.format(url)])
    assert SECRET not in str(caught.value)


def test_urls_inside_a_text() -> None:
    text = "'https://a:b@h/x?k=1' and http://h/y"
    assert redact(text) == "'https://***@h/x?***' and http://h/y"
