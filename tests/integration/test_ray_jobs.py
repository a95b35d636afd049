"""Submitted jobs on a real Ray cluster: workers and support actors killed, machines that go."""

import json
import os
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from tests.conftest import require
from tests.integration.ray_head import Head, Job, ray_head
from tests.integration.tiny import (
    ROOT,
    last_record,
    last_step,
    newest_checkpoint,
    steps,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)

ENDLESS = (
    *("train.steps=1000000", "optimizer.schedule=constant", "train.pictures_every=1000000"),
    *("train.validate_every=1000000", "train.checkpoint_every=20"),
)
WORKER, DRIVER = ("ray::RayTrainWorker",), ("python -m launch",)
SUPPORT = ("ray::SupportActor", "ray::primus-support")  # the latter while it answers


def wait_for_steps(output: Path, more: int) -> None:
    goal = last_step(output) + more
    wait_until(lambda: last_step(output) >= goal, timeout_s=300)


def train(
    head: Head, file: Path, *overrides: str, stop_wait_s: int = 60
) -> AbstractContextManager[Job]:
    command = ("python", "-m", "launch.ray_train", "--config", str(file), *overrides)
    return head.job(*command, environment={"RAY_JOB_STOP_WAIT_TIME_S": str(stop_wait_s)})


def wait_for_the_end_of_all(head: Head) -> None:
    for titles in (WORKER, SUPPORT, DRIVER):
        wait_until(lambda titles=titles: not head.processes(*titles))


def test_killed_worker_killed_support_actor_stopped_job(tmp_path: Path) -> None:
    require((os.cpu_count() or 1) >= 2, "two Ray workers need two cores")
    output = tmp_path / "out"
    service = ("support.home=service", "support.actors=2", "support.cpus_per_actor=0.5")
    config = tiny_config(
        output, write_shards(tmp_path / "shards"), "launch.workers=2", *ENDLESS, *service
    )
    file = write_config(config, tmp_path / "run.yaml")
    with ray_head(cpus=3) as head:
        with train(head, file, "output=runs/here") as job:
            assert job.wait() == "FAILED"
            assert (
                "output=runs/here lies in the job's own copy of the working directory" in job.said()
            )
        assert uploaded(head) <= known_to_git()

        with train(head, file, "launch.workers=8") as job:
            wait_until(lambda: "Attempting to start training worker group" in job.said())
            job.stop()
            assert job.wait() == "STOPPED"
            assert "stopped while no worker ran" in job.said(), "not killed after all patience"

        with train(head, file) as job:
            wait_for_steps(output, 30)
            kill_worker(head, output)
            kill_support_actor(head, job, output)
            job.stop()
            assert job.wait() == "STOPPED"
        done = newest_checkpoint(output)
        assert done == last_step(output), "a stopped job saves where it is"
        wait_for_the_end_of_all(head)

        start = time.monotonic()
        with train(head, file, f"train.steps={done + 30}") as job:
            wait_until(lambda: last_step(output) > done, timeout_s=300)
            print(f"submitted again: the next step after {time.monotonic() - start:.1f} s")
            assert job.wait() == "SUCCEEDED"
    assert steps(output) == list(range(1, done + 31)), "every step is logged once"
    assert json.loads((output / "train.json").read_text())["steps"] == done + 30


def uploaded(head: Head) -> set[str]:
    """The files that a job has of this checkout, without byte code that it has written since."""
    (copy,) = head.folder.glob("session_latest/runtime_resources/working_dir_files/*/")
    files = (path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    return {str(file) for file in files if "__pycache__" not in file.parts}


def known_to_git() -> set[str]:
    """The files of this checkout that git does not ignore: no data, no runs, no packages."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split("\0"))


def kill_worker(head: Head, output: Path) -> None:
    """Kill a worker and wait until the run has gone on; prints what it cost."""
    victim, *_ = head.processes(*WORKER)
    victim.kill()
    start = time.monotonic()
    psutil.wait_procs(head.processes(*WORKER))
    before, saved = last_step(output), newest_checkpoint(output)
    wait_until(lambda: saved < last_step(output) != before, timeout_s=300)
    print(
        f"worker killed: {before - saved} steps lost, the next step after "
        f"{time.monotonic() - start:.1f} s"
    )
    wait_for_steps(output, 5)


def kill_support_actor(head: Head, job: Job, output: Path) -> None:
    """Kill a support actor and wait until it is back; the run does not stop for it."""
    victim, *_ = head.processes(*SUPPORT)
    workers = head.processes(*WORKER)
    victim.kill()
    start, before = time.monotonic(), last_step(output)
    wait_until(lambda: last_step(output) > before)
    print(f"support actor killed: the next step after {time.monotonic() - start:.1f} s")
    wait_until(lambda: "is back" in job.said())
    wait_until(lambda: last_record(output)["support/actors_out"] == 0)
    print(f"support actor killed: back after {time.monotonic() - start:.1f} s")
    assert head.processes(*WORKER) == workers, "no worker was started again"


def test_run_grows_with_a_machine_and_goes_on_without_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    elastic = ("launch.workers=[1, 2]", "launch.resize_every_s=2", "support.home=service")
    config = tiny_config(output, write_shards(tmp_path / "shards"), *elastic, *ENDLESS)
    file = write_config(config, tmp_path / "run.yaml")
    with ray_head(cpus=1) as head, train(head, file, stop_wait_s=0) as job:
        wait_for_steps(output, 30)
        assert ranks(output) == 1
        start = time.monotonic()
        with head.node(cpus=1):
            wait_until(lambda: ranks(output) == 2, timeout_s=300)
            wait_for_steps(output, 1)
            print(f"machine started: two workers' next step after {time.monotonic() - start:.1f} s")
            wait_for_steps(output, 30)
            start = time.monotonic()
        wait_until(lambda: ranks(output) == 1, timeout_s=300)
        wait_for_steps(output, 1)
        print(f"machine lost: one worker's next step after {time.monotonic() - start:.1f} s")
        job.stop()  # which kills the driver before it can say a word
        wait_for_the_end_of_all(head)
    print(f"killed at step {last_step(output)}, checkpoint {newest_checkpoint(output)}")
    assert steps(output) == list(range(1, last_step(output) + 1)), "every step is logged once"


def ranks(output: Path) -> int:
    """How many workers the run had when it last set out."""
    return int(json.loads((output / "environment.json").read_text())["ranks"])
