"""YAML of strangers: read as YAML 1.1 says within bounds, or a ValueError and nothing else."""

import random
from pathlib import Path

import pytest
import yaml

from primus_scale.config import Config
from primus_scale.config_file import load_config, parse_config
from primus_scale.storage.yaml_text import MOST_BYTES, read_yaml

# Ten aliases of ten aliases ...: 10 ** 9 values in 500 bytes.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGE_BOMB = "m0: &m0 {a: 1, b: 2}\n" + "".join(
    f"m{n}: &m{n} {{k{n}: [{', '.join([f'*m{n - 1}'] * 10)}], <<: *m{n - 1}}}\n"
    for n in range(1, 9)
)
LONG_TEXTS = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 200)}]\n"
BAD = {
    "deep lists": ("[" * 100_000, "nested lists and mappings"),
    "deep mappings": ("{a: " * 5000, "nested lists and mappings"),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(900)), "nested lists and mappings"),
    "aliases": (BOMB, "by its aliases"),
    "aliases of mappings": (MERGE_BOMB, "by its aliases"),
    "aliases of a long text": (LONG_TEXTS, "by its aliases"),
    "a loop": ("a: &a [*a]", "an alias refers to its own value"),
    "a key twice": ("a: 1\nb: {c: 1, c: 2}\n", "line 2, column 11: the key c is there twice"),
    "a list as a key": ("? [a]\n: 1\n", "a list or a mapping"),
    "a long number": ("a: " + "9" * 100_000, "cannot be read"),
    "a date that is none": ("a: 2022-13-45", "cannot be read"),
    "binary": ("a: !!binary é", "."),
    "a python object": ("a: !!python/object/apply:os.system [ls]", "constructor"),
    "two documents": ("a: 1\n---\nb: 2\n", "."),
    "no YAML": ("a: [1", "line 1"),
    "a tab": ("a:\n\t- 1", "line 2"),
    "an unknown alias": ("a: *b", "undefined alias"),
    "a null byte": ("a: \0", "."),
    "too long": ("#" * (MOST_BYTES + 1), "longer than 1,048,576 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_a_short_value_error(name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(text.encode())
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a: 1\nb: \xe9", "a: \ud800"])
def test_what_is_no_utf8_is_told(data: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"UTF-8|character"):
        read_yaml(data)


def test_any_text_gives_a_tree_or_a_value_error() -> None:
    draw = random.Random(5)
    read = 0
    for _ in range(3000):
        text = "".join(draw.choices("[]{}&*a:,!<|>?-\n \t'\"#%@0x.e", k=draw.randrange(30)))
        data = draw.randbytes(draw.randrange(30)) if draw.random() < 0.2 else text
        for texts_only in (False, True):
            try:
                read_yaml(data, texts_only=texts_only)
                read += 1
            except ValueError as error:
                assert type(error) is ValueError
    assert read > 300


def test_good_yaml_is_read_as_the_library_reads_it() -> None:
    text = (
        "base: &base {rate: 50, unit: g, on: yes}\n"
        "one: {<<: *base, rate: 100}\ntwo: {<<: [*base, {x: 1.5}]}\n"
        "list: [1, 2e3, 0x10, null, ~, 'a b', 2022-01-02]\nünïcode: é\n"
    )
    assert read_yaml("\ufeff".encode() + text.encode()) == yaml.safe_load(text)
    assert read_yaml("a: 007\nb: no\n", texts_only=True) == {"a": "007", "b": "no"}
    assert read_yaml(b"") is None


@pytest.mark.parametrize("name", sorted(set(BAD) - {"binary", "a python object"}))
def test_a_bad_configuration_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(BAD[name][0], encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.yaml") as caught:
        load_config(path)
    assert len(str(caught.value)) < 600


def test_what_a_configuration_says_is_quoted_shortly() -> None:
    tree = {"name": ["x" * 10**6], **{f"{n}{'k' * 10**4}": 1 for n in range(100)}}
    with pytest.raises(ValueError, match=r"and 9[0-9] more") as caught:
        parse_config(Config, tree, "run.yaml")
    assert len(str(caught.value)) < 5000


def test_octal_and_sexagesimal_numbers_are_texts() -> None:
    """Nobody means 8 by 010, or 90 by 1:30."""
    text = "[010, -07, 1:30, 12:30:45.5, 0, 10, 1_000, 0x10, 0b11, 1.5, 1.0e+3]"
    assert read_yaml(text) == [
        *("010", "-07", "1:30", "12:30:45.5"),
        *(0, 10, 1000, 16, 3, 1.5, 1000.0),
    ]
