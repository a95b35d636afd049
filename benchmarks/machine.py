"""What machine a benchmark runs on, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from primus_scale.monitor.provenance import processor_name


def describe_machine(threads: int) -> str:
    """Its accelerator or processor, the threads used, and the version of torch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    return f"{device}, {threads} thread(s), torch {torch.__version__}"


def clock_of(device: torch.device | str) -> Callable[[], float]:
    """Seconds, for benchmarks: CPU time of the process, or wall time with a device at rest."""
    if torch.device(device).type == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
