"""A real SLURM of two nodes runs the job script, stops it, and starts it again where it was."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.tiny import (
    LAUNCHER,
    PAPER,
    ROOT,
    last_step,
    losses,
    newest_checkpoint,
    records,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)
from tests.slurm_cluster import Slurm, slurm_cluster

SCRIPT = "launch/slurm/pretrain.sbatch"
STEPS, EVERY = 16, 4  # a checkpoint every so many steps, where one is wanted before the end


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("slurm") / "shards")


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm, shards: str, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the run that nothing stops, on two nodes by srun without the job script."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = (sys.executable, str(LAUNCHER), "--config", configured(folder, shards))
    slurm.run("srun", "--nodes=2", *command)
    return losses(folder / "out")


def configured(folder: Path, shards: str, *overrides: str) -> str:
    # With the paper's encoder, since a rank must be halted before the run ends.
    options = (PAPER, f"train.steps={STEPS}", "train.pictures_every=100000", *overrides)
    return str(write_config(tiny_config(folder / "out", shards, *options), folder / "run.yaml"))


@contextmanager
def job_in_midrun(
    slurm: Slurm,
    folder: Path,
    config: str,
    *options: str,
    steps: int = 1,
    **variables: str,
) -> Iterator[str]:
    """A job that has done ``steps`` steps or a few more, and does no other inside the block.

    So what happens there happens in the middle of the run, however fast the machine is. ``options``
    are sbatch's.
    """
    options = (*options, f"--output={folder}/log", SCRIPT, "--config", config)
    job = slurm.sbatch(*options, **variables)
    wait_until(lambda: last_step(folder / "out") >= steps, timeout_s=240)
    halted = ranks(slurm)[-1]
    halted.suspend()
    try:
        yield job
    finally:
        with suppress(psutil.NoSuchProcess):
            halted.resume()


def ranks(slurm: Slurm) -> list[psutil.Process]:
    program, found = ["-u", str(LAUNCHER.relative_to(ROOT))], []
    for process in slurm.processes():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if process.cmdline()[1:3] == program:
                found.append(process)
    return found


def world(folder: Path) -> int:
    """How many ranks the run had when it last set out."""
    return int(json.loads((folder / "out/environment.json").read_text())["ranks"])


def log_of(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")


def check_goes_on(
    slurm: Slurm, job: str, folder: Path, undisturbed: list[float], *, stopped_with: int = 75
) -> None:
    ended = slurm.wait(job)
    log = log_of(folder)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), log
    assert f"pretrain.sbatch: stopped with {stopped_with}; to be started again" in log
    assert [line for line in log.splitlines() if "pretrain.sbatch: start" in line] == [
        f"pretrain.sbatch: start {start} of job {job} on n[1-2]" for start in (1, 2)
    ], "one log tells of both"
    done = losses(folder / "out")
    if world(folder) == 2:
        assert done == undisturbed, "no step is lost or done twice, bit for bit"
    else:  # sums over another number of ranks round differently
        assert done == pytest.approx(undisturbed, rel=1e-3)
    assert not ranks(slurm)


def test_ranks_of_srun_find_each_other(undisturbed: list[float]) -> None:
    assert len(undisturbed) == STEPS


def test_preempted_job_goes_on(
    slurm: Slurm, shards: str, undisturbed: list[float], tmp_path: Path
) -> None:
    with job_in_midrun(slurm, tmp_path, configured(tmp_path, shards)) as job:
        options = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
        urgent = slurm.sbatch(*options, "--wrap=true")
        assert slurm.wait(urgent)["JobState"] == "COMPLETED", log_of(tmp_path)
        assert 0 < len(losses(tmp_path / "out")) < STEPS
    check_goes_on(slurm, job, tmp_path, undisturbed)


def test_job_of_the_deepspeed_launcher_goes_on_after_its_time(
    slurm: Slurm, shards: str, undisturbed: list[float], tmp_path: Path
) -> None:
    config, two_a_node = configured(tmp_path, shards), "--ntasks-per-node=2"
    with job_in_midrun(slurm, tmp_path, config, two_a_node, PRIMUS_LAUNCHER="deepspeed") as job:
        assert (len(ranks(slurm)), world(tmp_path)) == (4, 4)
        # What SLURM does 90 s before the time limit, at --signal=B:TERM@90.
        slurm.run("scancel", "--batch", "--signal=TERM", job)
        wait_until(lambda: f"STEP {job}.0 ON n1 CANCELLED" in log_of(tmp_path))
        assert 0 < len(losses(tmp_path / "out")) < STEPS
    check_goes_on(slurm, job, tmp_path, undisturbed)


def test_job_of_which_a_rank_is_killed_goes_on_from_its_checkpoint(
    slurm: Slurm, shards: str, undisturbed: list[float], tmp_path: Path
) -> None:
    config = configured(tmp_path, shards, f"train.checkpoint_every={EVERY}")
    output = tmp_path / "out"
    with job_in_midrun(slurm, tmp_path, config, steps=EVERY + 2) as job:
        ranks(slurm)[-1].kill()
        start = time.monotonic()
        wait_until(lambda: not ranks(slurm))
        gone_s = time.monotonic() - start
    before, saved = records(output), newest_checkpoint(output)
    # A record holds the step's speed as well, so that of a step done again is another.
    at_kill = before[saved : saved + 1]
    wait_until(lambda: records(output)[saved : saved + 1] not in ([], at_kill), timeout_s=240)
    next_s = time.monotonic() - start
    print(
        f"rank killed: ranks gone after {gone_s:.1f} s, next step after {next_s:.1f} s, "
        f"{len(before) - saved} steps lost"
    )
    check_goes_on(slurm, job, tmp_path, undisturbed, stopped_with=137)
    assert records(output)[:saved] == before[:saved], "no more than those are done again"


def test_cancelled_job_does_not_come_back(slurm: Slurm, shards: str, tmp_path: Path) -> None:
    with job_in_midrun(slurm, tmp_path, configured(tmp_path, shards)) as job:
        found = {process.name() for process in slurm.processes()}
        assert {"slurmstepd", "slurmctld"} <= found, "who is not found is left behind at the end"
        slurm.run("scancel", job)
    ended = slurm.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0"), log_of(tmp_path)
    assert not ranks(slurm)


def test_job_whose_ranks_die_gives_up(slurm: Slurm, shards: str, tmp_path: Path) -> None:
    # In a partition whose jobs nobody preempts: SLURM tells less of such jobs.
    options = ("--partition=urgent", f"--output={tmp_path}/log", SCRIPT, "--config")
    job = slurm.sbatch(*options, configured(tmp_path, shards), PRIMUS_MAX_REQUEUES="1")
    for _ in range(2):
        wait_until(lambda: len(ranks(slurm)) == 2)
        for rank in ranks(slurm):
            rank.kill()
        wait_until(lambda: not ranks(slurm))
    ended, log = slurm.wait(job), log_of(tmp_path)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "1"), log
    assert "stopped with 137; to be started again" in log
    assert "ended with 137 at start 2; giving up" in log


@pytest.mark.parametrize("launcher", ["srun", "deepspeed", "mpirun"])
def test_error_of_a_user_is_not_tried_again(slurm: Slurm, launcher: str, tmp_path: Path) -> None:
    config = configured(tmp_path, str(tmp_path / "no-shards"))
    options = ("--nodes=1", f"--output={tmp_path}/log", SCRIPT, "--config", config)
    ended = slurm.wait(slurm.sbatch(*options, PRIMUS_LAUNCHER=launcher))
    log = log_of(tmp_path)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), log
    expected = "use srun or deepspeed" if launcher == "mpirun" else "no-shards"
    assert expected in log
    assert "Traceback" not in log
