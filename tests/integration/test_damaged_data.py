"""Data that were altered: verify tells, ``pretrain`` ends in one line and goes on with none."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from primus_scale.data.index import read_index
from shards.write.verify import verify
from tests import crafted, fork_server
from tests.index_edits import EDITS, bit_flips, flips
from tests.integration.tiny import ROOT, losses, tiny_config, write_config, write_shards
from tests.shard_factory import (
    edit_index,
    make_blocks,
    make_windows,
    rewrite_tars,
    write_packed,
)

LIMITED = Path(__file__).with_name("run_in_8_gib.py")
OF_PYTHON = ("Traceback", 'File "')


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``primus-scale`` with no more than 8 GiB of addresses."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return fork_server.run(LIMITED, *arguments, env=environment, cwd=ROOT)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed as a user's error does."""
    assert done.returncode == 1, done.stderr
    assert not any(word in done.stdout + done.stderr for word in OF_PYTHON), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    return line


def pretrain(folder: Path, shards: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    config = tiny_config(folder / "run", shards, "train.pictures_every=100", *overrides)
    return command("pretrain", "--config", str(write_config(config, folder / "run.yaml")))


@pytest.mark.parametrize("turn", [bit_flips, lambda text: flips(text, seed=1)])
def test_every_byte_and_bit_of_an_index(tmp_path: Path, turn: Callable[[bytes], Any]) -> None:
    write_packed(str(tmp_path), make_blocks(make_windows(8), block=4), provenance={"né": 1e-7})
    path = tmp_path / "index.json"
    for text in turn(path.read_bytes()):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"index\.json"):
            read_index(str(tmp_path))
        assert not verify(str(tmp_path)).ok


@pytest.mark.parametrize("what", ["labels swapped", "a length cut", "windows without end"])
def test_pretrain_refuses_an_altered_index(tmp_path: Path, what: str) -> None:
    shards = write_shards(tmp_path / "shards")
    edit_index(
        tmp_path / "shards",
        EDITS[what] if what != "labels swapped" else lambda tree: tree.update(labels=["x"]),
        seal=what == "windows without end",
    )
    assert f"{shards}/index.json" in one_line(pretrain(tmp_path, shards))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "what",
    [
        "block.safetensors: negative offsets",
        "block.safetensors: a header nested deeply",
        "meta.json: nested deeply",
        "tar: a member .pickle",
    ],
)
def test_pretrain_and_verify_end_in_one_line_on_crafted_members(tmp_path: Path, what: str) -> None:
    shards = tmp_path / "shards"
    write_packed(str(shards), make_blocks(make_windows(4)))
    rewrite_tars(shards, [crafted.BLOCK_RECORDS[what]], windows=[4])
    line = one_line(pretrain(tmp_path, str(shards), "train.batch=4"))
    assert f"{shards}/shard-000000.tar: record 0: " in line

    done = command("shards", "verify", str(shards))
    assert done.returncode == 1
    assert "FAULT  shard-000000.tar record 0: " in done.stdout
    assert done.stdout.splitlines()[-1].strip() == f"{done.stdout.count('FAULT')} faults"
    assert not done.stderr


def test_a_run_does_not_go_on_with_another_index(tmp_path: Path) -> None:
    """Equal tars under an index with other units, as one who seals it would write it."""
    shards = write_shards(tmp_path / "shards")
    # Rotation and gravity would be refused first: they need the units that sensors have.
    any_units = ("encoder.gravity=false", "augment=[{name: jitter}]")
    assert pretrain(tmp_path, shards, "train.steps=2", *any_units).returncode == 0
    whole = (tmp_path / "shards" / "index.json").read_bytes()
    edit_index(tmp_path / "shards", lambda tree: tree.update(units=["g"] * 3 + tree["units"][3:]))
    line = one_line(pretrain(tmp_path, shards, "train.steps=4", *any_units))
    assert "checkpoint of another run: data.train (content) is" in line
    assert "choose another output" in line

    (tmp_path / "shards" / "index.json").write_bytes(whole)
    assert pretrain(tmp_path, shards, "train.steps=4", *any_units).returncode == 0
    assert len(losses(tmp_path / "run")) == 4


def test_pretrain_refuses_shards_of_an_earlier_schema(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    edit_index(tmp_path / "shards", lambda tree: tree.update(schema=2), seal=False)
    line = one_line(pretrain(tmp_path, shards, "train.steps=2"))
    assert f"primus-scale shards embed --src WINDOWS --out {shards} --overwrite" in line


def test_a_folder_named_twice(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    (tmp_path / "link").symlink_to(tmp_path / "shards")
    train = json.dumps([shards, f"{tmp_path}/./link/"])
    line = one_line(pretrain(tmp_path, shards, f"data.train={train}"))
    assert "hold the same windows" in line
    assert "name each folder once" in line


def test_fewer_windows_than_a_batch(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    line = one_line(pretrain(tmp_path, shards, "train.batch=49"))
    assert "train.batch is 49, but data.train holds 48 windows" in line
