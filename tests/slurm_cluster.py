"""A real SLURM on this machine for a test: two virtual nodes of two cores each.

    with slurm_cluster() as slurm:
        job = slurm.sbatch("--nodes=2", "--output=LOG", "launch/slurm/pretrain.sbatch", ...)
        slurm.wait(job)

Nodes ``n1`` and ``n2`` are two ``slurmd`` that share the machine. Jobs in partition ``urgent``
preempt those in ``main``, which get ``GRACE_S`` seconds. Ports are the system's choice, all files
lie in a temporary folder, and whatever was started is killed at the end of the block. Needs SLURM
and munge, Debian's slurm-wlm and munge (skips; fails in CI).
"""

import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import require
from tests.integration.tiny import ROOT, free_port, wait_until

NODES = ("n1", "n2")
GRACE_S = 60
USER = pwd.getpwuid(os.getuid()).pw_name
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
PATH = f"/usr/sbin{os.pathsep}{os.environ['PATH']}"
# `cred_expire` is also how long a requeued job waits: 120 s by default, 6 at least.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=10
FirstJobId={first_job}
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime={grace} State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000"


@dataclass(frozen=True)
class Slurm:
    """A running cluster: its folder, and the environment in which its commands find it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, **variables: str) -> str:
        """What a command prints; AssertionError where it fails."""
        done = subprocess.run(
            command,
            env={**self.environment, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sbatch(self, *arguments: str, **variables: str) -> str:
        """Submit a job from the root of this checkout; returns its number."""
        return self.run("sbatch", "--parsable", *arguments, **variables).strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` tells of a job, by field."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, timeout_s: float = 300.0) -> dict[str, str]:
        """Wait until a job has ended, for good; returns what is told of it."""
        wait_until(lambda: self.job(number)["JobState"] in ENDED, timeout_s)
        return self.job(number)

    def processes(self) -> list[psutil.Process]:
        """All processes of this cluster, those of its jobs included."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found = []
        for process in psutil.process_iter():
            with suppress(OSError):  # it has ended, or belongs to somebody else
                # Not by psutil: slurmstepd writes a title over the start of its environment.
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        return found


@contextmanager
def slurm_cluster() -> Iterator[Slurm]:
    """A cluster whose two nodes are idle."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
    missing = [name for name in programs if not shutil.which(name, path=PATH)]
    require(not missing, f"{', '.join(missing)} of slurm-wlm and munge not installed")
    # Not in pytest's folder: the name of munge's socket would be too long.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = {
            **os.environ,
            "PATH": PATH,
            "SLURM_CONF": str(_configure(folder)),
            "PRIMUS_PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
        }
        slurm = Slurm(folder, environment)
        with ExitStack() as running:
            running.callback(_kill, slurm)
            _start_munge(slurm, running)
            _start(slurm, running, "slurmctld", "slurmctld", "-D")
            for node in NODES:
                _start(slurm, running, node, "slurmd", "-D", "-N", node)
            wait_until(lambda: _idle(slurm))
            running.callback(_end_jobs, slurm)
            yield slurm


def _configure(folder: Path) -> Path:
    (folder / "state").mkdir()
    host = socket.gethostname().split(".")[0]
    file = folder / "slurm.conf"
    nodes = (NODE.format(name=name, host=host, port=free_port()) for name in NODES)
    text = CONFIGURATION.format(
        folder=folder,
        host=host,
        port=free_port(),
        user=USER,
        # Ranks meet at a port that follows from the job's number.
        first_job=random.randrange(1, 10**6),
        nodes="\n".join(nodes),
        grace=GRACE_S,
    )
    file.write_text(text, encoding="utf-8")
    return file


def _start_munge(slurm: Slurm, running: ExitStack) -> None:
    folder = slurm.folder
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = ("socket", "pid-file", "log-file", "seed-file")
    options = [f"--key-file={key}"]
    options += [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in files]
    _start(slurm, running, "munge", "munged", "--foreground", "--force", *options)
    wait_until((folder / "munge.socket").exists)


def _start(slurm: Slurm, running: ExitStack, name: str, *command: str) -> None:
    """A daemon whose log is shown with a failing test."""
    log = slurm.folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=slurm.environment, stdout=file, stderr=subprocess.STDOUT
        )
    running.callback(_stop, process, log)


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.kill()
    process.wait()
    print(f"--- {log.name}", log.read_text(encoding="utf-8", errors="replace"), sep="\n")


def _end_jobs(slurm: Slurm) -> None:
    slurm.run("scancel", f"--user={USER}")
    wait_until(lambda: not slurm.run("squeue", "--noheader"))


def _kill(slurm: Slurm) -> None:
    """End what is left of jobs, where the daemons could not: they are no children of ours."""
    left = slurm.processes()
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _idle(slurm: Slurm) -> bool:
    try:
        states = slurm.run("sinfo", "--noheader", "--Node", "--format=%N %T").split()
    except AssertionError:  # the controller is starting
        return False
    return states.count("idle") >= len(NODES)
