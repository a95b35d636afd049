"""Links, pipes and names that lead out of a local source: followed, or left aside and named."""

import os
from pathlib import Path

import pytest

from shards.files.source import Source


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """``people`` with anna's file, and links in it; ``far`` lies next to it."""
    for name in ("people/anna", "people/.store/carl", "far/ben"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "w.csv").write_text("t\n1\n")
    (tmp_path / "people/ben").symlink_to(tmp_path / "far/ben")
    (tmp_path / "people/carl").symlink_to(".store/carl")
    (tmp_path / "people/anna/loop").symlink_to(tmp_path / "people")
    (tmp_path / "people/anna/up").symlink_to(tmp_path)
    (tmp_path / "people/anna/gone.csv").symlink_to("nowhere.csv")
    (tmp_path / "people/anna/far.csv").symlink_to(tmp_path / "far/ben/w.csv")
    os.mkfifo(tmp_path / "people/anna/pipe.csv")
    return tmp_path


def test_links_are_followed_once_and_what_is_not_read_is_named(folders: Path) -> None:
    source = Source(str(folders / "people"))
    assert source.find("**/*.csv") == [
        ".store/carl/w.csv",
        "anna/far.csv",
        "anna/w.csv",
        "ben/w.csv",
        "carl/w.csv",
    ]
    assert set(source.skipped) == {"anna/gone.csv", "anna/loop", "anna/pipe.csv", "anna/up"}
    assert "a link to nothing" in source.skipped["anna/gone.csv"]
    assert "a folder around it" in source.skipped["anna/loop"]
    assert "a pipe" in source.skipped["anna/pipe.csv"]
    assert source.find("*/w.csv") == ["anna/w.csv", "ben/w.csv", "carl/w.csv"]
    with source.open("ben/w.csv") as stream:
        assert stream.read() == b"t\n1\n"


def test_inside_means_that_links_out_are_named_and_refused(folders: Path) -> None:
    source = Source(str(folders / "people"), inside=True)
    assert source.find("*/*.csv") == ["anna/w.csv", "carl/w.csv"]
    assert source.skipped["ben"] == (
        f"is a link that leads out of {folders}/people, to {folders}/far/ben"
    )
    assert "leads out" in source.skipped["anna/far.csv"]
    for path in ("anna/far.csv", "ben/w.csv"):
        with pytest.raises(ValueError, match=r"a link that leads out of .*follow_links=true"):
            source.open(path)
    with pytest.raises(ValueError, match="a link that leads out"), source.local("ben/w.csv"):
        pass
    assert source.find("ben/*.csv") == []


def test_a_source_that_is_a_link_itself_is_read(folders: Path) -> None:
    (folders / "all").symlink_to(folders / "people")
    assert Source(str(folders / "all"), inside=True).find("anna/w.csv") == ["anna/w.csv"]


@pytest.mark.parametrize("path", ["../far/ben/w.csv", "anna/../../far/ben/w.csv", "/etc/passwd"])
def test_paths_out_of_the_source_are_refused(folders: Path, path: str) -> None:
    source = Source(str(folders / "people"))
    for use in (source.open, source.exists, source.version):
        with pytest.raises(ValueError, match="leads out of"):
            use(path)


def test_pipes_and_devices_are_refused_and_nothing_waits(folders: Path) -> None:
    (folders / "people/zero.csv").symlink_to("/dev/zero")
    source = Source(str(folders / "people"))
    for path in ("anna/pipe.csv", "zero.csv", "anna"):
        with pytest.raises(ValueError, match="is no regular file"):
            source.open(path)
        with pytest.raises(ValueError, match="is no regular file"), source.local(path):
            pass
    assert "zero.csv" not in source.find("*.csv")


def test_a_folder_that_cannot_be_read_and_one_too_deep_are_named(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 70)
    deep.mkdir(parents=True)
    (deep / "w.csv").write_text("t\n")
    source = Source(str(tmp_path))
    assert source.find("**/*.csv") == []
    assert list(source.skipped.values()) == ["lies below 64 folders"]


def test_long_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    source = Source(str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.json is longer than 1,000 bytes"):
        source.read_whole("a.json", 1000)
    assert len(source.read_whole("a.json", 200_000)) == 200_000
