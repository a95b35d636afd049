"""No command writes into the folder that it reads, however that folder is spelt."""

from collections.abc import Callable
from pathlib import Path

import pytest

from primus_scale.cli import main
from primus_scale.storage.apart import check_apart
from shards.write.verify import verify
from tests.recording_folder import write_recordings
from tests.shard_factory import make_windows, write_windows

THE_SOURCE = ("{}", "{}/", "{}/../{name}", "{}/x/..", "{link}")
SPELLINGS = (*THE_SOURCE, "{}/inner", "{}/x/../inner", "{link}/inner")
APART = ("{}_2", "{}/../other", "other", "{}/..")


def spelt(pattern: str, source: Path) -> str:
    return pattern.format(source, name=source.name, link=source.parent / "link")


def split(source: Path, out: str) -> list[str]:
    return ["split", "--test", "0.5", "--overwrite", str(source), out]


def embed(source: Path, out: str) -> list[str]:
    flags = ["--signal", "handcrafted", "--overwrite"]
    return ["embed", "--src", str(source), "--out", out, *flags]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    write_windows(str(source), make_windows(12))
    (tmp_path / "link").symlink_to(source)
    return source


@pytest.mark.parametrize("command", [split, embed])
@pytest.mark.parametrize("pattern", SPELLINGS)
def test_shards_are_not_written_into_their_source(
    command: Callable[[Path, str], list[str]],
    pattern: str,
    shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(path for path in shards.rglob("*"))
    assert main(["shards", *command(shards, spelt(pattern, shards))]) == 1
    assert "name an" in capsys.readouterr().err
    assert sorted(path for path in shards.rglob("*")) == before
    assert verify(str(shards)).ok


def test_a_split_whose_label_folder_is_the_source_is_refused(tmp_path: Path) -> None:
    write_windows(str(tmp_path / "label"), make_windows(12))
    assert main(["shards", *split(tmp_path / "label", str(tmp_path))]) == 1
    assert verify(str(tmp_path / "label")).ok


@pytest.mark.parametrize("pattern", THE_SOURCE)
def test_windows_are_not_built_into_the_folder_of_the_recordings(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    write_recordings(source, [0], seconds=6.0)
    (tmp_path / "link").symlink_to(source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    out = spelt(pattern, source)
    assert main(["shards", "build", "folder", "--src", str(source), "--out", out]) == 1
    assert "name an" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("pattern", APART)
def test_other_folders_are_apart(pattern: str, shards: Path) -> None:
    check_apart(spelt(pattern, shards), [str(shards)])


def test_urls_are_compared_by_storage_and_path() -> None:
    check_apart("memory://a/b2", ["memory://a/b"])
    check_apart("/a/b/c", ["memory://a/b"])
    with pytest.raises(ValueError, match=r"memory://a/b/c lies in memory://a/b, which is the sou"):
        check_apart("memory://a/b/c", ["memory://x", "memory://a/b"])
    with pytest.raises(ValueError, match="both source and output"):
        check_apart("memory://a/x/../b", ["memory://a/b"])
