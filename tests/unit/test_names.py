"""A name from a file is joined to a folder only where it stays below it."""

from pathlib import Path

import pytest

from primus_scale.storage.names import check_name, nearest, nearest_name, path_in, quoted

GOOD = (
    "manifest.json",
    "state/mp_rank_00_model_states.pt",
    "P01/left wrist/acc (2).csv",
    "Zürich/Übung-3.csv",
    "歩行.csv",
    "...hidden/..dots",
    "100%/a%20b.csv",
    "a~/b:c@d",
    "x" * 255,
    "/".join(["x" * 255] * 4),
)
BAD = (
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "/etc/passwd",
    "//host/share",
    "~/x",
    "~root/.ssh/authorized_keys",
    "..\\x",
    "a\\b",
    "C:x",
    "c:/x",
    "file:///etc/passwd",
    "s3://bucket/x",
    "simplecache::s3",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "a\x7fb",
    "a\u2028b",
    "a\udc80b",
    "%2e%2e/x",
    "..%2fx",
    "a/%2E%2E/%2e./x",
    "%2fetc/passwd",
    "a%5cb",
    "a%00b",
    "x" * 256,
    "é" * 128,
    "/".join(["x" * 200] * 6),
)


@pytest.mark.parametrize("name", GOOD)
def test_a_name_below_the_folder_stays_as_it_is(name: str, tmp_path: Path) -> None:
    assert check_name(name, "index.json") == name
    assert path_in(tmp_path, name, "index.json") == tmp_path / name


@pytest.mark.parametrize("name", [*BAD, None, 3, 1.5, ["a"], b"a", {"a": 1}])
def test_any_other_is_refused_with_where_it_stands(name: object) -> None:
    with pytest.raises(ValueError, match=r"^run/manifest\.json: the name ") as caught:
        check_name(name, "run/manifest.json")
    message = str(caught.value)
    assert len(message) < 300
    assert message.isprintable()


@pytest.mark.parametrize("name", ["a/b", "a%2fb"])
def test_a_plain_name_has_no_folder(name: str) -> None:
    check_name("a", "index.json", plain=True)
    with pytest.raises(ValueError, match="plain file name"):
        check_name(name, "index.json", plain=True)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "away").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    (inside / "home").symlink_to(inside / "real")
    for name in ("away/x", "file"):
        with pytest.raises(ValueError, match="by a link"):
            path_in(inside, name, "manifest.json")
    assert path_in(inside, "home/x", "manifest.json") == inside / "home" / "x"


def test_a_long_name_is_quoted_in_part() -> None:
    assert quoted("a'b") == repr("a'b")
    text = quoted("x" * 5000)
    assert len(text) < 120
    assert "5,000 characters" in text


def test_the_name_that_may_be_meant() -> None:
    assert nearest("persn", ("unit", "person")) == "; the nearest is 'person'"
    assert nearest("lrate", iter(["lr", "steps"]), "known key") == "; the nearest known key is 'lr'"
    assert nearest("zzz", ("a",)) == "; the nearest is 'a'"  # however far off it is
    assert nearest("a", ("", "b" * 200)).startswith("; the nearest is ")
    assert nearest("a", ()) == ""
    assert nearest_name("a", ()) is None


def test_comparing_with_long_and_many_names_ends_soon() -> None:
    assert nearest_name("a" * 10**6, ("a" * 90, "b")) == "a" * 90
    assert nearest_name("x1", (f"x{n}" for n in range(10**5))) == "x1"
