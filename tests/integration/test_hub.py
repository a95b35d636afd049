"""Encoders sent to a hub and loaded from it, by real requests of ``huggingface_hub``."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from primus_scale.cli import main
from primus_scale.encoders.pretrained import load_encoder
from tests.encoder_factory import export_small_encoder
from tests.hub_server import TOKEN, HubServer, Repository, hub_client, hub_server


@pytest.fixture
def here(tmp_path: Path) -> Iterator[HubServer]:
    """A server without repositories, which this process takes for the Hub, without a token."""
    with hub_server() as server, hub_client(server.url, tmp_path / "cache"):
        yield server


# huggingface_hub's own call of its HTTP client, where it sends weights by LFS.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_encoder_goes_to_the_hub_and_comes_back(
    here: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Sent, loaded at its first revision after a second one came, and loaded without a network."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    exported = load_encoder(export_small_encoder(tmp_path / "run/encoder"))
    assert main(["push", str(tmp_path / "run"), "hf://me/imu", "--private"]) == 0
    repository = here.repositories["me/imu"]
    (first,) = repository.commits
    assert capsys.readouterr().out == f"commit   {here.url}/me/imu/commit/{first}\n"
    assert repository.private
    assert repository.large == {"encoder.safetensors"}
    files = repository.commits[first]
    assert files.keys() == {"README.md", "card.json", "encoder.safetensors"}
    assert yaml.safe_load(files["README.md"].decode().split("---\n")[1])["license"] == "other"
    card = json.loads(files["card.json"])
    repository.add({"card.json": json.dumps(card | {"licence": "of a later commit"}).encode()})

    imu = torch.randn(2, 6, 250)
    pinned, latest = load_encoder(f"hf://me/imu@{first}"), load_encoder("hf://me/imu")
    assert (pinned.card.licence, latest.card.licence) == ("none", "of a later commit")
    for loaded in (pinned, latest):
        assert torch.equal(loaded(imu).features, exported(imu).features)
    seen = len(here.requests)
    with hub_client("http://127.0.0.1:9", tmp_path / "cache", HF_HUB_OFFLINE="1"):
        assert load_encoder(f"hf://me/imu@{first}").card.licence == "none"
        assert load_encoder("hf://me/imu").card.licence == "of a later commit"
        with pytest.raises(OSError, match="hf://me/other is not in the cache, and the Hub"):
            load_encoder("hf://me/other")
        assert main(["push", str(tmp_path / "run"), "hf://me/imu"]) == 1
        assert "HF_HUB_OFFLINE is set; unset it" in capsys.readouterr().err
    assert len(here.requests) == seen


def test_private_is_not_published(
    here: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    repository = stored(here, tmp_path / "encoder")
    command = ["push", str(tmp_path / "encoder"), "hf://me/imu"]
    assert main(command) == 1
    assert "hf auth login" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main([*command, "--private"]) == 1
    assert "hf://me/imu is there already and is public" in capsys.readouterr().err
    assert len(repository.commits) == 1


def stored(server: HubServer, folder: Path, private: bool = False, **changed: bytes) -> Repository:
    """A repository ``me/imu`` with an exported encoder."""
    export_small_encoder(folder)
    repository = server.repositories["me/imu"] = Repository(private)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    repository.add(files | {name.replace("_", "."): content for name, content in changed.items()})
    return repository


def test_features_from_the_hub_are_those_of_the_folder(here: HubServer, tmp_path: Path) -> None:
    stored(here, tmp_path / "encoder")
    imu = torch.randn(2, 6, 250)
    expected = load_encoder(tmp_path / "encoder")(imu).features
    assert torch.equal(load_encoder("hf://me/imu")(imu).features, expected)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("hf://me/other", "no such repository, or it is private .* `hf auth login`"),
        ("hf://me/imu@v9", "hf://me/imu@v9: the repository has no such revision"),
        ("hf://imu", "names no encoder on the Hub; write hf://OWNER/NAME"),
        ("hf://me/imu@", "names no encoder on the Hub"),
        ("hf://me/imu/encoder", "names no encoder on the Hub"),
        ("hf://token@hub/me/imu", "names no encoder on the Hub"),
        ("s3://bucket/encoder", "is a URL; this must be a path"),
    ],
)
def test_places_without_an_encoder(here: HubServer, tmp_path: Path, place: str, said: str) -> None:
    stored(here, tmp_path / "encoder")
    with pytest.raises((ValueError, OSError), match=said):
        load_encoder(place)


def test_a_private_repository_without_a_token(here: HubServer, tmp_path: Path) -> None:
    stored(here, tmp_path / "encoder", private=True)
    with pytest.raises(FileNotFoundError, match=r"private and not for this user; .* HF_TOKEN"):
        load_encoder("hf://me/imu")


def test_a_repository_of_something_else(here: HubServer) -> None:
    here.repositories["me/imu"] = Repository(False)
    here.repositories["me/imu"].add({"config.json": b"{}"})
    with pytest.raises(FileNotFoundError, match=r"holds no card\.json .* no encoder of primus"):
        load_encoder("hf://me/imu")


def test_weights_that_are_not_those_of_the_card(here: HubServer, tmp_path: Path) -> None:
    stored(here, tmp_path / "encoder", encoder_safetensors=b"others")
    with pytest.raises(ValueError, match=r"its sha256 is not weights_sha256 .* tell its owner"):
        load_encoder("hf://me/imu")


def test_without_a_network_and_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the library's attempts
    with (
        hub_client("http://127.0.0.1:9", tmp_path),
        pytest.raises(OSError, match="not in the cache, and the Hub cannot be reached"),
    ):
        load_encoder("hf://me/imu")
