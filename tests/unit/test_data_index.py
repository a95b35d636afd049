"""index.json: what is written is read, and what is damaged is refused with its field."""

import json
from dataclasses import replace

import pytest

from primus_scale.data.index import SCHEMA_VERSION, read_index, write_index
from tests.shard_factory import make_blocks, make_windows, write_packed, write_windows


@pytest.fixture
def folder(tmp_path):
    url = tmp_path / "packed"
    write_packed(str(url), make_blocks(make_windows(40)), provenance={"seed": 3, "note": "é"})
    return url


def edit(folder, change):
    path = folder / "index.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_round_trip(folder):
    index = read_index(str(folder))
    write_index(index, str(folder / "copy"))
    assert read_index(str(folder / "copy")) == index
    assert index.windows == 40
    assert index.window_s == pytest.approx(0.8)
    assert index.provenance == {"seed": 3, "note": "é"}
    assert json.loads((folder / "index.json").read_text())["schema"] == SCHEMA_VERSION


def test_trailing_slash_and_file_url(folder):
    assert read_index(f"file://{folder}/") == read_index(str(folder))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*index\.json; check the URL"):
        read_index(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["{", "[]", "\x80"])
def test_not_json(folder, content):
    (folder / "index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"index\.json.*write the shards again"):
        read_index(str(folder))


@pytest.mark.parametrize("schema", [None, 0, SCHEMA_VERSION + 1, "1"])
def test_wrong_schema(folder, schema):
    edit(folder, lambda tree: tree.update(schema=schema))
    with pytest.raises(ValueError, match=r"index\.json: field schema is .* reads 1; write"):
        read_index(str(folder))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tree: tree.pop("rate_hz"), "rate_hz"),
        (lambda tree: tree.update(rate=50), "rate"),
        (lambda tree: tree.update(rate_hz=0), "rate_hz"),
        (lambda tree: tree.update(kind="zip"), "kind"),
        (lambda tree: tree.update(kind="window"), "teachers"),
        (lambda tree: tree.update(mean=[0.0] * 5), "mean"),
        (lambda tree: tree.update(std=[float("nan")] * 6), "std"),
        (lambda tree: tree.update(shards=[]), "shards"),
        (lambda tree: tree["shards"][0].update(name="../other.tar"), r"shards\.0"),
        (lambda tree: tree["shards"][0].update(size=10), r"shards\.0"),
        (lambda tree: tree["shards"][0].update(sha512=""), r"shards\.0\.sha512"),
        (lambda tree: tree["shards"][0]["records"].pop(0), r"records\[0\]"),
        (lambda tree: tree["shards"][0]["records"][1].pop(), r"shards\.0\.records\.1"),
        (lambda tree: tree["teachers"]["video"].pop("key"), r"teachers\.video\.key"),
        (lambda tree: tree["teachers"].update(audio=tree["teachers"]["text"]), "audio"),
    ],
)
def test_bad_field_is_named(folder, change, named):
    edit(folder, change)
    with pytest.raises(ValueError, match=rf"index\.json: .*{named}"):
        read_index(str(folder))


def test_write_is_whole_or_nothing(folder):
    before = (folder / "index.json").read_bytes()
    bad = replace(read_index(str(folder)), provenance={"not JSON": object()})
    with pytest.raises(TypeError):
        write_index(bad, str(folder))
    assert (folder / "index.json").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_window_index_names_its_classes(tmp_path):
    index = write_windows(str(tmp_path), make_windows(9))
    assert index.kind == "window"
    assert index.labels == ("lie", "sit")
