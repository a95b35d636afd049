"""Runs on two hosts (network namespaces) whose cable is pulled while they train."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from primus_scale.train.trainer import REQUEUE, pretrain
from tests.fork_server import Forked
from tests.integration.ray_head import scratch_folder
from tests.integration.tiny import (
    LAUNCHER,
    PAPER,
    last_step,
    losses,
    newest_checkpoint,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)
from tests.netns import DEVICE, Host, two_hosts

RAY = str(Path(sys.executable).with_name("ray"))
STEPS = 60
OVERRIDES = (
    PAPER,  # the cut must come before the run ends
    f"train.steps={STEPS}",
    "train.checkpoint_every=10",
    "train.pictures_every=1000",
    "launch.workers=2",
    "data.timeout_s=1",
    "data.patience_s=1",
)
STUCK_AFTER_S = 9.0
# A silent node is given up after some 6 s; by default it has 10 s to answer, five times.
QUICK_DEATHS = {
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1500,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of the same run in this process alone."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert pretrain(tiny_config(output, shards, *OVERRIDES)) == 0
    return losses(output)


def test_ray_on_two_hosts_goes_on_after_a_cut(
    tmp_path: Path, shards: str, undisturbed: list[float]
) -> None:
    """One worker on each host. Ray gives the silent node up; it leaves, and is started anew."""
    output, said = tmp_path / "out", tmp_path / "driver.log"
    file = write_config(tiny_config(output, shards, *OVERRIDES), tmp_path / "run.yaml")
    environment = {
        **on_device(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",
    }
    with scratch_folder() as scratch, two_hosts() as (first, second):
        address = f"{first.address}:6379"
        head = ("--head", "--port=6379", "--include-dashboard=false")
        start_node(
            first, scratch, environment, *head, f"--system-config={json.dumps(QUICK_DEATHS)}"
        )
        node = start_node(second, scratch, environment, f"--address={address}")
        driver = first.start(
            *(sys.executable, "-m", "launch.ray_train", "--config", str(file)),
            log=said,
            environment={**environment, "RAY_ADDRESS": address},
        )
        wait_until(lambda: last_step(output) > 12)
        assert [workers(host) for host in (first, second)] == [1, 1]

        with second.cut_off():
            cut, done, kept = time.monotonic(), last_step(output), newest_checkpoint(output)
            wait_until(lambda: "missed too many heartbeats" in said.read_text(), timeout_s=30)
            print(f"cut after step {done}: noticed after {time.monotonic() - cut:.1f} s")
            wait_until(lambda: not workers(first), timeout_s=30)  # it would wait for the other
            assert driver.poll() is None
        back = time.monotonic()
        assert node.wait(timeout=60) != 0
        print(f"link back: the node has left after {time.monotonic() - back:.1f} s")
        start_node(second, scratch, environment, f"--address={address}")
        wait_until(lambda: last_step(output) > done)
        print(f"past step {done} again after {time.monotonic() - back:.1f} s, {done - kept} lost")
        assert driver.wait(timeout=120) == 0, said.read_text()
    assert losses(output) == pytest.approx(undisturbed, rel=1e-3)


def test_ranks_on_two_hosts_outlast_a_short_cut_and_end_after_a_long_one(
    tmp_path: Path, shards: str, undisturbed: list[float]
) -> None:
    """TCP sends again what a short cut has swallowed; after a long one both ranks give up."""
    output = tmp_path / "out"
    config = tiny_config(output, shards, *OVERRIDES, f"train.stuck_after_s={STUCK_AFTER_S}")
    file = write_config(config, tmp_path / "run.yaml")
    with two_hosts() as hosts:
        said = [tmp_path / f"rank{rank}.log" for rank in range(2)]
        ranks = start_ranks(hosts, file, said)
        wait_until(lambda: last_step(output) > 5)
        with hosts[1].cut_off():
            done = last_step(output)
            time.sleep(STUCK_AFTER_S / 3)
        back = time.monotonic()
        wait_until(lambda: last_step(output) > done + 1)
        print(f"short cut: next step {time.monotonic() - back:.1f} s after it, none lost")
        wait_until(lambda: newest_checkpoint(output) > 0)

        with hosts[1].cut_off():
            cut, done, kept = time.monotonic(), last_step(output), newest_checkpoint(output)
            codes = [rank.wait(timeout=60) for rank in ranks]
            print(f"long cut: both have ended after {time.monotonic() - cut:.1f} s with {codes}")
        assert codes == [REQUEUE, REQUEUE]
        for rank, log in enumerate(said):
            other = rf"rank {1 - rank} \(.*\) is halted or lost"
            told = rf"rank {rank}: no progress for {STUCK_AFTER_S:g} s: {other}"
            assert re.search(told, log.read_text())

        back = time.monotonic()
        ranks = start_ranks(hosts, file, said)
        wait_until(lambda: last_step(output) > done)
        print(f"past step {done} again after {time.monotonic() - back:.1f} s, {done - kept} lost")
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    assert losses(output) == pytest.approx(undisturbed, rel=1e-3)


def start_ranks(hosts: Sequence[Host], file: Path, said: Sequence[Path]) -> list[Forked]:
    """One rank on each host, as ``srun`` or ``deepspeed`` would start them."""
    environment = {
        **on_device(),
        "WORLD_SIZE": str(len(hosts)),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": hosts[0].address,
        "MASTER_PORT": "29500",
    }
    return [
        host.fork(
            LAUNCHER,
            *("--config", str(file)),
            log=log,
            environment={**environment, "RANK": str(rank)},
        )
        for rank, (host, log) in enumerate(zip(hosts, said, strict=True))
    ]


def on_device() -> dict[str, str]:
    """An environment for processes on a host: gloo would take the address of the host's name."""
    return {
        **os.environ,
        "GLOO_SOCKET_IFNAME": DEVICE,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }


def start_node(
    host: Host, scratch: str, environment: Mapping[str, str], *options: str
) -> subprocess.Popen[bytes]:
    """Start Ray with one core on a host, and return when it runs."""
    log = Path(scratch) / f"{secrets.token_hex(4)}.log"
    node = host.start(
        *(RAY, "start", "--block", "--disable-usage-stats", f"--node-ip-address={host.address}"),
        *("--num-cpus=1", "--num-gpus=0", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--temp-dir={scratch}/{host.address[-1]}", *options),
        log=log,
        environment=environment,
    )
    wait_until(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
    assert node.poll() is None, log.read_text()
    return node


def workers(host: Host) -> int:
    """How many of Ray Train's workers run on a host."""
    titles = []
    for process in host.processes():
        with suppress(psutil.Error):
            titles.append(" ".join(process.cmdline()))
    return sum(title.startswith("ray::RayTrainWorker") for title in titles)
