"""A run on two machines that share nothing but object storage: it survives the loss of both."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from tests.integration.tiny import (
    losses,
    said_by,
    start_ranks,
    step_of,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)
from tests.s3_server import s3_server

APART = Path(__file__).with_name("run_apart.py")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory):
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


def whole(url: str) -> list[str]:
    """Names of the checkpoints at ``url`` that have a manifest."""
    server, root = fsspec.core.url_to_fs(url)
    server.invalidate_cache()
    return sorted(path.split("/")[-2] for path in server.glob(f"{root}/step-*/manifest.json"))


def test_lost_machines_and_damaged_copies(bucket: str, tmp_path: Path) -> None:
    run_url = f"{bucket}/runs/tiny"
    server, root = fsspec.core.url_to_fs(run_url)
    config = tiny_config(
        tmp_path / "unused",
        write_shards(tmp_path / "shards"),
        f"train.storage={bucket}/runs",
        "train.zero_stage=2",
        "train.checkpoint_every=2",
        "train.pictures_every=100000",
        "optimizer.schedule=constant",
    )
    command = (APART, str(tmp_path), "--config", str(write_config(config, tmp_path / "run.yaml")))
    ranks = start_ranks(2, *command, "train.steps=100000")
    wait_until(lambda: len(whole(f"{run_url}/checkpoints")) >= 2)
    for rank in ranks:
        rank.kill()
    wait_for(ranks)
    nodes = [tmp_path / "node-0", tmp_path / "node-1"]
    pieces = [{path.name for path in node.rglob("*optim_states.pt")} for node in nodes]
    assert all(len(names) == 1 for names in pieces), "each machine has the piece of its rank"
    assert pieces[0] != pieces[1]
    before, done = losses(nodes[0]), step_of(whole(f"{run_url}/checkpoints")[-1])
    for node in nodes:
        shutil.rmtree(node)

    assert wait_for(start_ranks(2, *command, f"train.steps={done + 4}")) == [0, 0]
    after = losses(nodes[0])
    assert len(after) == done + 4, "the log comes back, too"
    assert after[: len(before)] == before[: len(after)]
    names = {path.removeprefix(f"{root}/") for path in server.find(root)}
    assert {"train.json", "metrics.jsonl", "config.yaml", "encoder/encoder.safetensors"} <= names
    assert any(name.startswith("tensorboard/") for name in names)
    assert json.loads(server.cat_file(f"{root}/train.json"))["steps"] == done + 4
    kept = whole(f"{run_url}/checkpoints")
    assert [step_of(name) for name in kept] == [done + 2, done + 4]

    # The newest copy is damaged, one machine is lost and the other not replaced.
    damaged = next(path for path in server.find(root) if f"{kept[-1]}/state/zero" in path)
    server.pipe_file(damaged, server.cat_file(damaged)[:-1] + b"\0\0")
    for node in nodes:
        shutil.rmtree(node)
    (said,), codes = said_by(start_ranks(1, *command, f"train.steps={done + 6}"))
    assert codes == [0]
    assert f"passing over the damaged checkpoint {nodes[0]}/checkpoints/{kept[-1]}" in said
    assert "was saved by 2 ranks; converting it for 1" in said
    assert losses(nodes[0])[: done + 4] == pytest.approx(after, rel=1e-3)
    assert len(losses(nodes[0])) == done + 6
