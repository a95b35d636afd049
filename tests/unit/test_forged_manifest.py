"""What is at ``train.storage`` may be forged: it writes nothing outside a checkpoint's folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from primus_scale.checkpoint.copies import RunStorage
from primus_scale.checkpoint.folder import CheckpointFolder, newest_encoder
from primus_scale.checkpoint.manifest import MANIFEST, dump_manifest, parse_manifest
from primus_scale.storage.patience import Patience

SECRET = b"ssh-ed25519 AAAA attacker"
NAME = "step-00000003"
Tree = dict[str, Any]


def entry(content: bytes = SECRET) -> Tree:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def manifest(*names: str, **changes: Any) -> Tree:
    tree = {
        "progress": {"step": 3, "skipped": 0, "skipped_in_a_row": 0},
        "world": 1,
        "identity": {},
        "files": {name: entry() for name in names},
    }
    return {**tree, **changes}


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def fetched(
    folder: Path, tree: Tree, copies: tuple[str, ...] = (), *, good: bool = False
) -> set[str]:
    """The files below ``folder`` after a new machine has asked a forged storage for checkpoints."""
    stored = folder / "storage/tiny/checkpoints" / NAME
    stored.mkdir(parents=True, exist_ok=True)
    (stored / MANIFEST).write_text(dump_manifest(tree))
    for name in copies:  # what the forger would have written
        path = Path(os.path.normpath(stored / name.lstrip("/")))
        if path.is_relative_to(folder) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET)
    before = listing(folder)
    storage = RunStorage(str(folder / "storage/tiny"), Patience())
    checkpoints = CheckpointFolder(str(folder / "machine/out"), storage, 2)
    if good:
        assert checkpoints.find_whole() is not None
    else:  # it does not begin anew next to them
        with pytest.raises(ValueError, match=r"none of the checkpoints in .*/storage/tiny"):
            checkpoints.find_whole()
    return listing(folder) - before


@pytest.mark.parametrize(
    "name",
    [
        "../../../../.ssh/authorized_keys",
        "state/../../../../../.ssh/authorized_keys",
        "/tmp/primus-scale-forged",
        "//tmp/primus-scale-forged",
        "~/.ssh/authorized_keys",
        "state/../../x",
        "state/./x",
        "state//x",
        "state",
        "state/",
        "",
        "..",
        "x",
        "manifest.json",
        "other/x",
        "State/x",
        "state/\0x",
        "state/\nx",
        "state/\udc80",
        "state/%2e%2e/%2e%2e/x",
        "state/..%2fx",
        "state\\..\\x",
        "file:///tmp/primus-scale-forged",
        "state/" + "x" * 300,
        "state/" + "/".join("x" * 200 for _ in range(10)),
    ],
)
def test_a_forged_name_writes_nothing(tmp_path: Path, name: str) -> None:
    copies = (name,) if "\0" not in name and name.isprintable() and len(name) < 255 else ()
    assert fetched(tmp_path, manifest("state/good", name), copies) == set()
    with pytest.raises(ValueError, match=r"checkpoint/manifest\.json: field files: "):
        parse_manifest(dump_manifest(manifest(name)), NAME, "checkpoint/manifest.json")


def test_good_names_are_fetched(tmp_path: Path) -> None:
    names = ("state/a.bin", "support/b.bin", "encoder/c/d.bin")
    stored = tmp_path / "storage/tiny/checkpoints" / NAME
    for name in names:
        (stored / name).parent.mkdir(parents=True, exist_ok=True)
        (stored / name).write_bytes(SECRET)
    assert fetched(tmp_path, manifest(*names), good=True) == {
        f"machine/out/checkpoints/{NAME}/{name}" for name in (*names, MANIFEST)
    }


def test_a_link_in_the_output_is_not_written_through(tmp_path: Path) -> None:
    stored = tmp_path / "storage/tiny/checkpoints" / NAME / "state"
    stored.mkdir(parents=True)
    (stored / "authorized_keys").write_bytes(SECRET)
    home, own = tmp_path / "home", tmp_path / "machine/out/checkpoints" / NAME
    home.mkdir()
    own.mkdir(parents=True)
    (own / "state").symlink_to(home)
    assert fetched(tmp_path, manifest("state/authorized_keys")) == set()
    assert list(home.iterdir()) == []


def test_what_is_larger_than_its_entry_is_not_fetched(tmp_path: Path) -> None:
    stored = tmp_path / "storage/tiny/checkpoints" / NAME / "state"
    stored.mkdir(parents=True)
    (stored / "x").write_bytes(SECRET + b"more")
    assert fetched(tmp_path, manifest("state/x")) == set()


def changed(change: Callable[[Tree], object]) -> Tree:
    tree = manifest("state/x")
    change(tree)
    return tree


@pytest.mark.parametrize(
    "tree",
    [
        changed(lambda tree: tree.pop("progress")),
        changed(lambda tree: tree.update(progress=[])),
        changed(lambda tree: tree["progress"].update(step="3")),
        changed(lambda tree: tree["progress"].update(step=-1)),
        changed(lambda tree: tree["progress"].update(step=3.5)),
        changed(lambda tree: tree["progress"].update(step=True)),
        changed(lambda tree: tree["progress"].update(step=2**70)),
        changed(lambda tree: tree["progress"].update(step=4)),
        changed(lambda tree: tree["progress"].update(skipped=float("nan"))),
        changed(lambda tree: tree["progress"].update(more=1)),
        changed(lambda tree: tree["progress"].pop("skipped")),
        changed(lambda tree: tree.update(world=0)),
        changed(lambda tree: tree.update(world=None)),
        changed(lambda tree: tree.update(world="2")),
        changed(lambda tree: tree.update(identity=None)),
        changed(lambda tree: tree.update(identity=["x" * 10_000])),
        changed(lambda tree: tree.pop("files")),
        changed(lambda tree: tree.update(files=[])),
        changed(lambda tree: tree.update(files={})),
        changed(lambda tree: tree["files"].update({"state/x": None})),
        changed(lambda tree: tree["files"].update({"state/x": {"size": 1}})),
        changed(lambda tree: tree["files"].update({"state/x": {**entry(), "size": -1}})),
        changed(lambda tree: tree["files"].update({"state/x": {**entry(), "size": "1"}})),
        changed(lambda tree: tree["files"].update({"state/x": {**entry(), "sha256": "x"}})),
        changed(lambda tree: tree["files"].update({"state/x": {**entry(), "more": "x"}})),
        changed(lambda tree: tree["files"].update({"state/x/y": entry()})),
    ],
)
def test_a_resealed_manifest_with_other_values_is_damaged(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^place/manifest\.json: ") as caught:
        parse_manifest(dump_manifest(tree), NAME, "place/manifest.json")
    assert len(str(caught.value)) < 300
    assert fetched(tmp_path, tree) == set()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        "null",
        "[]",
        "\x80",
        "1" * 10_000,
        '{"schema": 2}',
        "{",
    ],
)
def test_text_that_is_no_manifest_is_damaged(text: str) -> None:
    with pytest.raises(ValueError, match=r"place/manifest\.json") as caught:
        parse_manifest(text, NAME, "place/manifest.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["step-*", "step-1", "step-000000003", "step-0000000x", "step-"])
def test_a_folder_of_another_name_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    stored = tmp_path / "storage/tiny/checkpoints" / name
    stored.mkdir(parents=True)
    (stored / MANIFEST).write_text(json.dumps({}))
    storage = RunStorage(str(tmp_path / "storage/tiny"), Patience())
    assert storage.checkpoints() == []
    shutil.copytree(tmp_path / "storage/tiny", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        newest_encoder(tmp_path / "out")


def test_results_with_a_name_that_leads_elsewhere_are_refused(tmp_path: Path) -> None:
    stored, home, output = (
        tmp_path / "storage/tiny/tensorboard",
        tmp_path / "home",
        tmp_path / "out",
    )
    for folder in (stored, home, output):
        folder.mkdir(parents=True)
    (stored / "events").write_bytes(SECRET)
    (output / "tensorboard").symlink_to(home)
    with pytest.raises(ValueError, match="by a link"):
        RunStorage(str(stored.parent), Patience()).fetch_results(output, ["tensorboard"])
    assert list(home.iterdir()) == []
