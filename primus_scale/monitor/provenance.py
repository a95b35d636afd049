"""The provenance of a run: its configuration, the commit of the code, versions, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from primus_scale.config import Config
from primus_scale.config_file import dump_config
from primus_scale.storage.files import write_atomically

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
PACKAGES = (
    "primus-scale",
    "torch",
    "deepspeed",
    "ray",
    "webdataset",
    "transformers",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "safetensors",
    "numpy",
)


def write_provenance(config: Config, world: int) -> None:
    """Write ``config.yaml`` and ``environment.json`` into the run's output folder.

    OSError naming the file that cannot be written.
    """
    output = Path(config.output)
    environment = describe_environment() | {"ranks": world}
    write_atomically(output / CONFIG_FILE, dump_config(config))
    write_atomically(output / ENVIRONMENT_FILE, json.dumps(environment, indent=1) + "\n")


def describe_environment() -> dict[str, Any]:
    """Commit of the code, Python, and versions of packages, the program's own among them.

    commit, uncommitted_changes: None where the code is not in its own git checkout, for example
    where it is an installed package inside another project's checkout.
    """
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    changes = _git("status", "--porcelain", "--untracked-files=no") if tracked else None
    return {
        "commit": _git("rev-parse", "HEAD") if tracked else None,
        "uncommitted_changes": bool(changes) if changes is not None else None,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed_version(name))},
    }


def describe_hardware() -> dict[str, Any]:
    """The machine: processor, cores that this process may use, memory in GB, names of GPUs."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": gpus,
    }


def processor_name() -> str:
    """The processor's name from Linux, or its kind."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    # In a git hook, environment variables name the hook's repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
