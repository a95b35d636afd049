"""Bad descriptions, links and names: nobody vanishes, nothing is read outside, others go on."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from shards.readers import create_reader
from shards.readers.table_yaml import _check_delimiter
from tests.folder_factory import (
    build,
    describe,
    described,
    description,
    errors,
    motion,
    read,
    sensor,
    text_table,
)
from tests.reading import windows_of


def people(tmp_path: Path) -> Path:
    """anna as described; ben by a link out of the source, carl by one within, dora misnamed."""
    source = tmp_path / "src"
    time_s, values = motion(12)
    table = text_table([f"{t:.2f}" for t in time_s], values)
    for folder in (source / "anna", tmp_path / "far/ben", source / ".store/carl", source / "dora"):
        folder.mkdir(parents=True)
        (folder / ("W.csv" if folder.name == "dora" else "w.csv")).write_text(table)
    (source / "ben").symlink_to(tmp_path / "far/ben")
    (source / "carl").symlink_to(".store/carl")
    (source / "anna/loop").symlink_to("..")
    (source / "anna/notes.csv").write_text("a,b\n")
    os.mkfifo(source / "anna/pipe.csv")
    keys = described(time={"column": "t", "unit": "s"}) | {"recordings": "{person}"}
    del keys["person"]
    describe(source, keys)
    return source


def test_nobody_vanishes_behind_a_link_or_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = people(tmp_path)
    assert build(source, tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.removeprefix("  not read ") for line in lines if "not read" in line]
    assert told == json.loads((tmp_path / "out/ingest.json").read_text())["unread"]
    text = "\n".join(told)
    assert f"ben is a link that leads out of {source}, to {tmp_path}/far/ben" in text
    assert "dora: it holds none of w.csv; the nearest is 'W.csv'" in text
    assert "anna: notes.csv, which no recording.yaml names" in text
    assert "anna/pipe.csv is a pipe" in text and "anna/loop is a link to a folder around" in text
    assert {one.meta.person for one in windows_of(tmp_path / "out")} == {
        "folder-anna",
        "folder-carl",
    }
    assert max(errors(tmp_path / "out")) < 0.01
    assert build(source, tmp_path / "all", "--option", "follow_links=true") == 0
    assert {one.meta.person for one in windows_of(tmp_path / "all")} == {
        "folder-anna",
        "folder-ben",
        "folder-carl",
    }


BAD = {
    "deep": "devices: " + "[" * 5000,
    "aliases": "a: &a [x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(2, 10)).replace(
        "*a1", "*a"
    ),
    "a key twice": "person: a\nperson: b\n",
    "huge": "person: a\ndevices: []\nx: " + "9" * 10**5,
    "long": "#" * 2**21,
    "unknown keys": "".join(f"k{n}: 1\n" for n in range(5000)),
    "no text": b"\xff\xfe\xfa",
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_description_fails_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = people(tmp_path)
    (source / "eve").mkdir()
    content = BAD[name]
    path = source / "eve/recording.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reader = create_reader("folder", str(source))
    by_name = {ref.name: ref for ref in reader.recordings()}
    assert set(by_name) == {"anna", "carl", "eve"}
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        reader.open(by_name["eve"]).__enter__()
    assert len(str(caught.value)) < 2000
    if name == "aliases":  # and so for the whole build
        assert build(source, tmp_path / "out") == 0
        (failed,) = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
        assert failed.strip().startswith(f"FAILED   eve: {path} is not valid YAML")
        assert len(errors(tmp_path / "out")) == 4


def test_a_delimiter_that_no_table_can_have_is_named() -> None:
    for text in ("§", "–"):
        with pytest.raises(ValueError, match=f"'{text}' is no delimiter .* must be ASCII"):
            _check_delimiter(text)
    assert _check_delimiter("semicolon") == ";"


@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        ("../far/*", r"recordings: the name '\.\./far/\*' has an empty part, \. or \.\. in it"),
        ("/tmp/*", "is absolute"),
        ("{person}/../../far/*", "has an empty part"),
        ("**/x", "may hold names"),
        ("*a*a*a*a*a*a*a*a*a*", "may hold names"),
        ("{person}/[ab]", "may hold names"),
        ("nobody/*", "no folder eve/nobody/[*] holds w.csv"),
    ],
)
def test_patterns_stay_below_the_source(recordings: str, message: str, tmp_path: Path) -> None:
    source = people(tmp_path)
    keys = described(time={"column": "t", "unit": "s"}) | {"recordings": recordings}
    keys |= {"person": None} if "{person}" in recordings else {}
    describe(source / "eve", {key: value for key, value in keys.items() if value is not None})
    reader = create_reader("folder", str(source))
    by_name = {ref.name: ref for ref in reader.recordings()}
    assert set(by_name) == {"anna", "carl", "eve"}
    with pytest.raises(ValueError, match=message), reader.open(by_name["eve"]):
        pass


@pytest.mark.parametrize(
    "file", ["../w.csv", "/etc/passwd.csv", "a//w.csv", "C:/w.csv", "s3://b/w.csv"]
)
def test_files_stay_below_the_source(file: str, tmp_path: Path) -> None:
    describe(tmp_path, description(sensor(file=file)))
    with pytest.raises(ValueError, match=r"sensors\.0\.file: .* must lie in the folder or below"):
        read(tmp_path)


def test_links_and_pipes_that_a_description_names_are_refused(tmp_path: Path) -> None:
    source = people(tmp_path)
    (source / "anna/far.csv").symlink_to(tmp_path / "far/ben/w.csv")
    (source / "anna/zero.csv").symlink_to("/dev/zero")
    for file, message in (
        ("far.csv", "is a link that leads out of"),
        ("zero.csv", "is no regular file"),
        ("pipe.csv", "is no regular file"),
    ):
        describe(source / "anna", description(sensor(file=file)))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with pytest.raises(ValueError, match=message):
            read(source / "anna")
