"""Start real processes joined by gloo, each with its own rank, and collect what they return."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from tests.fork_server import Forked, start

Result = dict[str, torch.Tensor]
POLL_S = 0.05
ROOT = Path(__file__).parents[1]


def run_ranks(
    function: Callable[..., Result],
    world: int,
    folder: Path,
    *,
    timeout_s: float = 90,
    **arguments: Any,
) -> list[Result]:
    """Call ``function(**arguments)`` in ``world`` processes; what each returned, by rank.

    ``function`` stands at the top of a test module and ``arguments`` survive JSON. Raises
    AssertionError with the output of a rank that fails or of all ranks when time is up; no process
    outlives the call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    name = f"{function.__module__}:{function.__name__}"
    job = [name, str(world), str(folder), json.dumps(arguments), str(timeout_s)]
    outputs = [folder / f"rank{rank}.txt" for rank in range(world)]
    processes: list[Forked] = []
    try:
        for rank, output in enumerate(outputs):
            with output.open("wb") as stream:
                program = Path(__file__)
                processes.append(start(program, str(rank), *job, env=env, output=stream))
        _wait(processes, outputs, timeout_s)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(world)]


def _wait(processes: list[Forked], outputs: list[Path], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while any(process.poll() is None for process in processes):
        if time.monotonic() > end:
            said = "\n".join(output.read_text() for output in outputs)
            raise AssertionError(f"ranks still run after {timeout_s} s:\n{said}")
        if any(process.poll() for process in processes):
            break
        time.sleep(POLL_S)
    if any(process.poll() for process in processes):
        said = "\n".join(
            f"rank {rank} ended with {process.returncode}:\n{output.read_text()}"
            for rank, (process, output) in enumerate(zip(processes, outputs, strict=True))
        )
        raise AssertionError(said)


def _run_rank(
    rank: int, name: str, world: int, folder: Path, arguments: dict[str, Any], timeout_s: float
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
    module, function = name.split(":")
    result = getattr(importlib.import_module(module), function)(**arguments)
    save_file(
        {key: tensor.detach().contiguous() for key, tensor in result.items()},
        folder / f"rank{rank}.safetensors",
    )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _run_rank(
        int(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        Path(sys.argv[4]),
        json.loads(sys.argv[5]),
        float(sys.argv[6]),
    )
