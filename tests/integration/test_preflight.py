"""The checks before a run, in real process groups: what is well passes, each fault is named."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from primus_scale.config import Config
from tests.conftest import require
from tests.integration.tiny import (
    ROOT,
    forked,
    start_ranks,
    tiny_config,
    write_config,
    write_shards,
)

PREFLIGHT = ROOT / "launch" / "preflight.py"
CHECKS = ["batch", "versions", "devices", "index", "shards", "output", "shared", "memory"]
CHECKS += ["clock", "collectives", "step"]

# Runs the program as it stands, on one rank after a fault has been put into the process.
WITH_FAULT = """
import os, runpy, sys, time
if os.environ["RANK"] == "{rank}":
    {fault}
sys.argv[0] = {program!r}
runpy.run_path({program!r}, run_name="__main__")
"""


def preflight(folder: Path, config: Config, fault: str = "") -> tuple[list[int], Any, str]:
    """Exit codes of two ranks, the findings by check, and what all ranks printed."""
    program = with_fault(folder, fault or "pass")
    file, found = write_config(config, folder / "run.yaml"), folder / "found.json"
    ranks = start_ranks(2, program, "--config", str(file), "--json", str(found))
    try:
        said = "\n".join(rank.communicate(timeout=120)[0] for rank in ranks)
    finally:
        end(ranks)
    return [rank.returncode for rank in ranks], by_check(found), said


def with_fault(folder: Path, fault: str, rank: int = 1) -> Path:
    """The program with ``fault``, lines of Python, in ``rank``."""
    program = folder / "with_fault.py"
    program.write_text(WITH_FAULT.format(fault=fault, rank=rank, program=str(PREFLIGHT)))
    return program


def end(ranks: list[subprocess.Popen[str]]) -> None:
    """Let none of the processes outlive its test."""
    for rank in ranks:
        rank.kill()
        rank.communicate()


def by_check(file: Path) -> dict[str, list[dict[str, str]]]:
    """Findings of a JSON file, by check in the order they were made."""
    checks: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(file.read_text())["findings"]:
        checks.setdefault(finding.pop("check"), []).append(finding)
    return checks


def results(findings: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """The result of each check that has but one."""
    return {check: rows[0]["result"] for check, rows in findings.items() if len(rows) == 1}


def apart(folder: Path) -> tuple[Path, Path, str]:
    """Working directories of rank 0 and rank 1, as of two nodes, and what puts the ranks there."""
    here, there = folder / "here", folder / "there"
    here.mkdir()
    there.mkdir()
    return here, there, f"os.chdir({str(there)!r})\nelse:\n    os.chdir({str(here)!r})"


def test_healthy_nodes_without_a_shared_folder_pass_and_keep_nothing(tmp_path: Path) -> None:
    shards, copy = write_shards(tmp_path / "shards"), tmp_path / "copy"
    here, there, moved = apart(tmp_path)
    data = {"train": [shards], "validation": [write_shards(tmp_path / "held", 16, seed=1)]}
    config = tiny_config(Path("runs/out"), shards, f"train.storage={copy}", data=data)
    codes, findings, said = preflight(tmp_path, config, moved)
    assert codes == [0, 0], said
    assert results(findings) == dict.fromkeys(CHECKS, "ok"), said
    assert "2 ranks on CPU" in findings["devices"][0]["detail"]
    assert "gloo: all-reduce" in findings["collectives"][0]["detail"]
    assert "one step and its checkpoint" in findings["step"][0]["detail"]
    assert "note:" not in said, "what one step leaves without effect is not the run's"
    for folder in (here, there, copy):
        assert not list(folder.iterdir()), said
    for check in CHECKS:
        assert f"\n{check:<12}" in f"\n{said}"


def test_ray_starts_the_ranks(tmp_path: Path) -> None:
    require((os.cpu_count() or 1) >= 2, "two Ray workers need two cores")
    runs, found = tmp_path / "runs", tmp_path / "found.json"
    config = tiny_config(runs / "out", write_shards(tmp_path / "shards"), "launch.workers=2")
    file = str(write_config(config, tmp_path / "run.yaml"))
    with forked("launch.preflight", "--config", file, "--json", str(found)) as driver:
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
    findings = by_check(found)
    assert results(findings) == dict.fromkeys(CHECKS, "ok"), said
    assert "2 ranks on CPU" in findings["devices"][0]["detail"]
    assert not runs.exists(), "the output folder was not there before"


def test_every_fault_is_told_in_one_go(tmp_path: Path) -> None:
    other = tmp_path / "site" / "safetensors-0.1.dist-info"  # as another installation would have
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 0.1\n")
    (tmp_path / "file").touch()
    here, there, moved = apart(tmp_path)
    shard = next(Path(write_shards(here / "shards", windows=16)).glob("*.tar"))
    shard.unlink()
    index = Path(write_shards(there / "shards", windows=16)) / "index.json"
    index.write_text(index.read_text()[:-100])
    config = tiny_config(tmp_path / "file" / "out", "shards", "train.batch=9")
    fault = f"sys.path.insert(0, {str(other.parent)!r}); now = time.time; "
    fault += f"time.time = lambda: now() + 5; {moved}"
    codes, findings, said = preflight(tmp_path, config, fault)

    assert codes == [1, 1], said
    assert "Traceback" not in said
    failed = {
        "batch": "train.batch=9 does not divide by 2 ranks",
        "versions": "safetensors is 0.1, setup.py wants >=0.8; safetensors is 0.1, on ",
        "output": f"cannot write {tmp_path / 'file' / 'out'}",
    }
    for check, reason in failed.items():
        (row,) = findings[check]
        assert row["result"] == "FAIL"
        assert reason in row["detail"]
        assert f"preflight: {check} on {row['node']}: {row['detail']}\n" in said, "on stderr"
    assert findings["versions"][0]["node"].endswith(" rank 1")
    missing, damaged = findings["index"]
    assert (missing["result"], damaged["result"]) == ("FAIL", "FAIL")
    assert missing["detail"].startswith(f"shard shards/{shard.name} is missing")
    assert missing["node"].endswith(" rank 0")
    assert damaged["detail"].startswith("shards/index.json: no JSON")
    assert damaged["node"].endswith(" rank 1")
    (clock,) = findings["clock"]
    assert clock["result"] == "warn"
    assert "+5.0 s from the clock of" in clock["detail"]
    assert results(findings) | dict.fromkeys(("devices", "collectives"), "ok") == results(findings)
    for check in ("shards", "shared", "memory", "step"):
        assert findings[check][0]["detail"].startswith("not run, since it needs: ")


def test_too_little_memory_keeps_the_step_from_running(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    config = tiny_config(tmp_path / "out", shards, "support.capacity=1000000000000")
    codes, findings, said = preflight(tmp_path, config)
    assert codes == [1, 1], said
    (memory,) = findings["memory"]
    assert memory["result"] == "FAIL"
    assert "(support set " in memory["detail"]
    assert "lower support.capacity or train.batch" in memory["detail"]
    assert findings["step"][0]["detail"] == "not run, since it needs: memory"


def test_altered_shard_and_output_that_is_not_shared(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    here, there, moved = apart(tmp_path)
    codes, findings, said = preflight(tmp_path, tiny_config(Path("out"), shards), moved)
    assert codes == [1, 1], said
    assert "record 0 (bytes 0 to" in findings["shards"][0]["detail"]
    assert [row["result"] for row in findings["shared"]] == ["FAIL", "FAIL"]
    for row, unseen in zip(findings["shared"], (1, 0), strict=True):
        assert row["node"].endswith(f" rank {1 - unseen}")
        assert "out is not one folder for all: files of" in row["detail"]
        assert f" rank {unseen} do not show" in row["detail"]
    assert not [*here.iterdir(), *there.iterdir()]


def test_a_rank_that_ends_in_the_step_ends_the_others(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards"))
    other = tmp_path / "other.json"
    fault = (
        f"sys.argv[-1] = {str(other)!r}\n    "
        "import primus_scale.train.trainer as t; build = t.build_run\n"
        "    def broken(*arguments):\n"
        "        build(*arguments)\n"
        "        raise OSError('this device fell off the bus')\n"
        "    t.build_run = broken"
    )
    codes, findings, said = preflight(tmp_path, config, fault)
    assert codes == [1, 1], said
    assert "rank 1: this device fell off the bus\n" in said
    assert findings["step"][0]["result"] == "FAIL"
    assert findings["step"][0]["node"].endswith(" rank 0"), "which met the other's end"
    assert not other.exists(), "only rank 0 writes"


@pytest.mark.parametrize("halted", [0, 1])
def test_a_rank_that_halts_before_it_has_met_the_others_is_named(
    tmp_path: Path, halted: int
) -> None:
    config = tiny_config(
        tmp_path / "out",
        write_shards(tmp_path / "shards"),
        "train.stuck_after_s=6",
        "data.timeout_s=1",
        "data.patience_s=1",
    )
    program = with_fault(
        tmp_path,
        "import signal, launch.checks.base as b\n"
        "    b.new_scratch = lambda config: os.kill(os.getpid(), signal.SIGSTOP)",
        halted,
    )
    file = write_config(config, tmp_path / "run.yaml")
    ranks = start_ranks(2, program, "--config", str(file))
    try:
        said = ranks[1 - halted].communicate(timeout=120)[0]
    finally:
        end(ranks)
    assert ranks[1 - halted].returncode == 1, said
    name = rf"rank {halted} \({re.escape(socket.gethostname())}, pid {ranks[halted].pid}\)"
    assert re.search(rf"rank {1 - halted}: no progress for 6 s: {name} is halted or lost", said)
