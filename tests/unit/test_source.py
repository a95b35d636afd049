from pathlib import Path

import fsspec
import pytest

from shards.files.source import Source

FOLDERS = ("rides [v2]", "rides *", "rides ?", "rides 2", "rides v", "rides")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of folders of which some would match the others, were their names patterns."""
    root = str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"
    for number, name in enumerate(FOLDERS):
        for path in (f"{number}.csv", f"below/{number}.csv", "notes.txt"):
            file_system, at = fsspec.core.url_to_fs(f"{root}/{name}/{path}")
            file_system.makedirs(at.rpartition("/")[0], exist_ok=True)
            file_system.pipe_file(at, b"text")
    return root


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_found_whatever_the_folder_is_called(root: str, name: str) -> None:
    number = FOLDERS.index(name)
    source = Source(f"{root}/{name}")
    assert source.find("**/*.csv") == [f"{number}.csv", f"below/{number}.csv"]
    assert source.find("*.csv") == [f"{number}.csv"]
    assert source.find("below/?.csv") == [f"below/{number}.csv"]
    for path in source.find("**/*.csv"):
        assert source.exists(path) and source.version(path).startswith("4 ")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_folder_of_a_file_is_named(root: str, name: str) -> None:
    number = FOLDERS.index(name)
    assert Source(f"{root}/{name}").folder(f"{number}.csv") == name
    assert Source(f"{root}/{name}/").folder(f"below/{number}.csv") == "below"
    assert Source(f"{root}/{name}/{number}.csv").folder(f"{number}.csv") == name


def test_the_folder_of_a_relative_source_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Optional").mkdir()
    monkeypatch.chdir(tmp_path / "Optional")
    assert Source(".").folder("subject101.dat") == "Optional"


def test_links_to_files_are_found_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/walk.vrs").write_bytes(b"x")
    (tmp_path / "source/folder.vrs").mkdir(parents=True)
    (tmp_path / "source/link.vrs").symlink_to(tmp_path / "store/walk.vrs")
    assert Source(str(tmp_path / "source")).find("**/*.vrs") == ["link.vrs"]
