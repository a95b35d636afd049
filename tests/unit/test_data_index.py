"""index.json: what is written is read, and what is damaged is refused with its field."""

import hashlib
import json
from dataclasses import replace

import pytest

from primus_scale.data.index import SCHEMA_VERSION, SessionPart, read_index, write_index
from primus_scale.data.shard_set import ShardSet
from tests.shard_factory import edit_index, make_blocks, make_windows, write_packed, write_windows


@pytest.fixture
def folder(tmp_path):
    url = tmp_path / "packed"
    write_packed(str(url), make_blocks(make_windows(40)), provenance={"seed": 3, "note": "é"})
    return url


def test_round_trip(folder):
    index = read_index(str(folder))
    write_index(index, str(folder / "copy"))
    assert read_index(str(folder / "copy")) == index
    assert index.windows == 40
    assert index.window_s == pytest.approx(0.8)
    people = {"random": ["person-0", "person-1"]}  # which the writer adds
    assert index.provenance == {"seed": 3, "note": "é", "people": people}
    assert json.loads((folder / "index.json").read_text())["schema"] == SCHEMA_VERSION


def test_digest_is_that_of_the_content(folder):
    """Other for any other field; that in the file covers the schema as well."""
    index = read_index(str(folder))
    text = (folder / "index.json").read_text()
    content = json.dumps(json.loads(text) | {"schema": None, "sha256": None}, separators=(",", ":"))
    content = content.removesuffix(',"sha256":null}').replace('{"schema":null,', "{") + "}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert index.digest == digest
    sealed = text.rpartition(',"sha256":')[0]
    assert text == f'{sealed},"sha256":"{hashlib.sha256(sealed.encode()).hexdigest()}"}}\n'
    assert replace(index, labels=("lie", "walk", "sit")).digest != digest


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(labels=tree["labels"][::-1]),
        lambda tree: tree.update(units=["g"] * 3 + tree["units"][3:]),
        lambda tree: tree.update(rate_hz=100.0),
        lambda tree: tree.update(channels=tree["channels"][::-1]),
        lambda tree: tree["mean"].reverse(),
        lambda tree: tree["teachers"]["video"].update(key="another"),
        lambda tree: tree["provenance"].update(seed=4),
        lambda tree: tree.pop("sha256"),
        lambda tree: tree.update(sha256=tree["sha256"].upper()),
        lambda tree: tree.update(sha256=None),
        lambda tree: tree.update(labels=tree.pop("labels")),  # another order of fields
    ],
)
def test_an_altered_index_is_refused(folder, change):
    edit_index(folder, change, seal=False)
    with pytest.raises(ValueError, match=r"index\.json is not what was written.*copy it again"):
        read_index(str(folder))
    with pytest.raises(ValueError, match=r"index\.json is not what was written"):
        ShardSet.open(str(folder))


def test_an_index_laid_out_anew_is_refused(folder):
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    with pytest.raises(ValueError, match="is not what was written"):
        read_index(str(folder))


@pytest.mark.parametrize("schema", [1, 2])
def test_folders_of_earlier_schemas_are_refused_with_the_commands_that_write_them(
    folder, tmp_path, schema
):
    def change(tree):
        tree.update(schema=schema)

    edit_index(folder, change, seal=False)
    with pytest.raises(
        ValueError, match=rf"field schema is {schema}, .* reads 3 and 4; "
    ) as refused:
        ShardSet.open(str(folder))
    embed = f"primus-scale shards embed --src WINDOWS --out {folder} --overwrite"
    assert f"({embed}; its window shards first, with primus" in str(refused.value)

    windows = tmp_path / "windows"
    write_windows(str(windows), make_windows(4))
    edit_index(windows, change, seal=False)
    with pytest.raises(ValueError, match="field schema is") as refused:
        ShardSet.open(str(windows))
    assert f"(primus-scale shards build NAME --out {windows} --overwrite)" in str(refused.value)


def test_trailing_slash_and_file_url(folder):
    assert read_index(f"file://{folder}/") == read_index(str(folder))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*index\.json; check the URL"):
        read_index(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "\x80", "[" * 100_000, '{"schema":1' + "0" * 10_000 + "}"]
)
def test_not_json(folder, content):
    (folder / "index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"index\.json.*write the shards again"):
        read_index(str(folder))


def test_folders_of_schema_3_still_open(folder):
    """They are the same but for what the seal covers."""
    path = folder / "index.json"
    index = read_index(str(folder))
    tree = json.loads(path.read_text())
    del tree["schema"], tree["sha256"]
    content = json.dumps(tree, separators=(",", ":"))
    seal = hashlib.sha256(content.encode()).hexdigest()
    path.write_text(f'{{"schema":3,{content[1:-1]},"sha256":"{seal}"}}\n')
    assert read_index(str(folder)) == index
    assert read_index(str(folder)).digest == index.digest
    path.write_text(path.read_text().replace('"schema":3', '"schema":4'))
    with pytest.raises(ValueError, match="is not what was written"):
        read_index(str(folder))


@pytest.mark.parametrize("schema", [None, 0, SCHEMA_VERSION + 1, "1", True, [2], "x" * 10_000])
def test_wrong_schema(folder, schema):
    edit_index(folder, lambda tree: tree.update(schema=schema))
    with pytest.raises(ValueError, match=r"index\.json: field schema is .* reads 3 and 4; write"):
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
        (lambda tree: tree.update(std=[float("nan")] * 6), "JSON"),
        (lambda tree: tree.update(std=[-1.0] * 6), "std"),
        (lambda tree: tree.update(shards=[]), "shards"),
        (lambda tree: tree["shards"][0].update(name="../other.tar"), r"shards\.0"),
        (lambda tree: tree["shards"][0].update(size=10), r"shards\.0"),
        (lambda tree: tree["shards"][0].update(sha512=""), r"shards\.0\.sha512"),
        (lambda tree: tree["shards"][0]["records"].pop(0), r"records\[0\]"),
        (lambda tree: tree["shards"][0]["records"][1].pop(), r"shards\.0\.records\.1"),
        (lambda tree: tree["teachers"]["video"].pop("key"), r"teachers\.video\.key"),
        (lambda tree: tree["teachers"].update(audio=tree["teachers"]["text"]), "audio"),
        (lambda tree: tree["teachers"]["text"].update(dim=10**15), "too few for 16 windows"),
        (lambda tree: tree["teachers"]["text"].update(dim=-6), r"teachers\.text\.dim"),
        (lambda tree: tree.update(window_samples=10**18), "too few for"),
        (lambda tree: tree["shards"][0]["records"][0].__setitem__(2, 10**15), "too few for"),
        (lambda tree: tree["shards"][0]["records"][0].__setitem__(2, 2**70), "records.0"),
        (lambda tree: tree["shards"][0]["records"][0].__setitem__(3, -1), "records.0"),
        (lambda tree: tree["shards"][0]["records"][0].__setitem__(1, True), "records.0"),
        (lambda tree: tree["shards"].append(tree["shards"][0]), "shards: names.*twice"),
        (lambda tree: tree["shards"].append({**tree["shards"][0], "name": "b.tar"}), "twice"),
        (lambda tree: tree["shards"][0].update(sha256="x" * 64), "sha256"),
        (lambda tree: tree.update(rate_hz="50"), "rate_hz"),
        (lambda tree: tree.update(labels=["sit", "sit", "lie"]), "labels: 'sit' is there twice"),
        (lambda tree: tree.update(channels=["a"] * 6), "channels: 'a' is there twice"),
        (lambda tree: tree.update(provenance=[]), "provenance"),
    ],
)
def test_bad_field_is_named(folder, change, named):
    edit_index(folder, change)
    with pytest.raises(ValueError, match=rf"index\.json: .*{named}"):
        read_index(str(folder))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop(), "has 2 sessions for 3 records"),
        (lambda s: s[0].pop(), r"sessions\[0\] has 8 of 16 windows"),
        (lambda s: s[2][0].__setitem__(1, 9), r"sessions\[2\] has 9 of 8 windows"),
        (lambda s: s[0][1].pop(), r"shards\.0\.sessions\.0\.1"),
        (lambda s: s[0][1].__setitem__(0, 2**63), r"shards\.0\.sessions\.0\.1"),
        (lambda s: s[0][1].__setitem__(1, 0), r"shards\.0\.sessions\.0\.1"),
        (lambda s: s[0][1].__setitem__(2, -0.5), r"shards\.0\.sessions\.0\.1"),
    ],
)
def test_bad_sessions_are_named(folder, change, named):
    """Of three records, with sessions of 8 windows."""
    sessions = [[[7, 8, 2.5], [-7, 8, 0.0]], [[7, 8, 2.5], [-7, 8, 0.0]], [[9, 8, 1]]]
    edit_index(folder, lambda tree: tree["shards"][0].update(sessions=sessions))
    parts = read_index(str(folder)).shards[0].sessions
    assert parts[0] == ((7, 8, 2.5), (-7, 8, 0.0))
    assert parts[2][0] == SessionPart(session=9, windows=8, step_s=1.0)
    edit_index(folder, lambda tree: change(tree["shards"][0]["sessions"]))
    with pytest.raises(ValueError, match=rf"index\.json: .*{named}"):
        read_index(str(folder))


def test_sessions_are_of_packed_shards_and_of_all_of_them(tmp_path):
    index = write_windows(str(tmp_path / "a"), make_windows(1))
    shard = replace(index.shards[0], sessions=((SessionPart(1, 1, 0.0),),))
    with pytest.raises(ValueError, match="sessions must be empty unless kind is packed"):
        replace(index, shards=(shard,))
    blocks = make_blocks(make_windows(32))
    index = write_packed(str(tmp_path / "b"), blocks, shard_bytes=1, sessions=True)
    with pytest.raises(ValueError, match="some have sessions, others have none"):
        replace(index, shards=(index.shards[0], replace(index.shards[1], sessions=())))


def test_write_is_whole_or_nothing(folder):
    before = (folder / "index.json").read_bytes()
    bad = replace(read_index(str(folder)), provenance={"not JSON": object()})
    with pytest.raises(TypeError):
        write_index(bad, str(folder))
    assert (folder / "index.json").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_what_could_not_be_read_is_not_written(folder):
    index = read_index(str(folder))
    object.__setattr__(index, "labels", ("sit", "sit"))
    with pytest.raises(ValueError, match="twice"):
        write_index(index, str(folder))


def test_window_index_names_its_classes(tmp_path):
    index = write_windows(str(tmp_path), make_windows(9))
    assert index.kind == "window"
    assert index.labels == ("lie", "sit")
