"""What machine a benchmark ran on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def describe_machine(threads: int) -> str:
    """Its accelerator or processor, the threads used, and the version of torch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    return f"{device}, {threads} thread(s), torch {torch.__version__}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
