"""URLs with credentials are refused wherever one may be given, and no message repeats them."""

from pathlib import Path

import pytest

from primus_scale.config_file import load_config
from primus_scale.data.index import read_index
from primus_scale.urls import check_url, redact
from shards.files.source import Source

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
)


@pytest.mark.parametrize("url", WITHOUT)
def test_other_urls_and_paths_stay_as_they_are(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_url_with_credentials_is_refused_without_telling_them(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: run\noutput: out\ndata: {train: [shards]}\n")
    attempts = (
        lambda: check_url(url),
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
