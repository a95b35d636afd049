"""Files are written whole or not at all, and what fails says which file and what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from primus_scale.storage.files import write_atomically
from tests.full_disk import files_limited_to


def test_folder_is_made_and_the_file_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for text in ("first", "second, naïve"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def note(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            done.append(name)
            return call(*arguments)

        return noted

    monkeypatch.setattr(os, "fsync", note("flushed", os.fsync))
    monkeypatch.setattr(Path, "replace", note("renamed", Path.replace))
    write_atomically(tmp_path / "file.json", "text")
    assert done == ["flushed", "renamed"]


def test_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "before")
    with files_limited_to(100), pytest.raises(OSError, match=f"cannot write {path} .*free some"):
        write_atomically(path, "after" * 100)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_made_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "blocked").touch()
    path = tmp_path / "blocked" / "file.json"
    with pytest.raises(OSError, match=f"cannot write {path} .*choose another output folder"):
        write_atomically(path, "text")
