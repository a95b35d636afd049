"""What a killed worker, and a killed support actor, cost the demo: three submitted jobs.

    make pretrain                                  # the data
    python -m tests.demo_recovery runs/recovery    # undisturbed, worker killed, actor killed

Each is ``configs/demo.yaml`` with two workers and two support actors on a cluster of its own, then
the few-shot figure of its encoder on HAPT. Prints a line of JSON for each.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.integration.ray_head import BIN, Head, Job, ray_head
from tests.integration.test_ray_jobs import SUPPORT, WORKER
from tests.integration.tiny import last_step, newest_checkpoint, steps, wait_until

HOUR_S = 3600.0


def kill_worker(head: Head, job: Job, output: Path) -> dict[str, Any]:
    """Kill one of the two; wait until the run is further than it was at its last checkpoint."""
    group = head.processes(*WORKER)
    group[-1].kill()
    start = time.monotonic()
    psutil.wait_procs(group, timeout=60)
    before, saved = last_step(output), newest_checkpoint(output)
    # What was logged beyond the checkpoint is dropped first.
    wait_until(lambda: last_step(output) <= saved, HOUR_S)
    wait_until(lambda: last_step(output) > saved, HOUR_S)
    return {"steps_lost": before - saved, "next_step_s": round(time.monotonic() - start, 1)}


def kill_support_actor(head: Head, job: Job, output: Path) -> dict[str, Any]:
    """Kill one of the two; wait until it is back."""
    start, before = time.monotonic(), last_step(output)
    head.processes(*SUPPORT)[-1].kill()
    wait_until(lambda: last_step(output) > before, HOUR_S)
    next_step_s = time.monotonic() - start
    wait_until(lambda: "is back" in job.said(), HOUR_S)
    back_s = time.monotonic() - start
    return {"steps_lost": 0, "next_step_s": round(next_step_s, 1), "back_s": round(back_s, 1)}


def run_demo(
    data: Path, output: Path, kill_at: int, kill: Callable[..., dict[str, Any]] | None
) -> dict[str, Any]:
    """One run to its end; what ``kill`` has seen, and accuracies in % by the number of labels."""
    overrides = {
        "output": output,
        "data.train": f"[{data}/packed/train]",
        "data.validation": f"[{data}/packed/validation]",
        "support.home": "service",
        "support.actors": 2,
        "train.log_every": 1,
        "train.checkpoint_every": 50,
    }
    command = ("python", "-m", "launch.ray_train", "--config", "configs/demo.yaml")
    figures: dict[str, Any] = {}
    settings = (f"{key}={value}" for key, value in overrides.items())
    with ray_head(cpus=2) as head, head.job(*command, *settings) as job:
        if kill is not None:
            wait_until(lambda: last_step(output) >= kill_at, HOUR_S)
            figures = kill(head, job, output)
        assert job.wait(HOUR_S) == "SUCCEEDED"
    logged = steps(output)
    assert logged == list(range(1, logged[-1] + 1)), "each step is logged once"
    evaluate = (str(BIN / "primus-scale"), "evaluate", "--run", str(output))
    # The arms that train are not looked at.
    few_shot = ("--data", f"{data}/few_shot", "draws=10", "steps=1")
    subprocess.run([*evaluate, *few_shot], check=True)
    report = json.loads((output / "few_shot" / "few_shot.json").read_text())
    accuracies = {
        k: [round(100 * arms["pretrained"][name], 1) for name in ("mean", "low", "high")]
        for k, arms in report["few_shot"].items()
    }
    return {**figures, "accuracy": accuracies}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--data", type=Path, default=Path("data/demo"))
    parser.add_argument("--kill-at", type=int, default=200, help="step of the kill")
    return parser


def main() -> None:
    """Run the three."""
    args = build_parser().parse_args()
    kills = {
        "undisturbed": None,
        "worker killed": kill_worker,
        "support actor killed": kill_support_actor,
    }
    for name, kill in kills.items():
        output = args.out.absolute() / name.replace(" ", "_")
        row = run_demo(args.data.absolute(), output, args.kill_at, kill)
        print(json.dumps({"run": name, **row}), flush=True)


if __name__ == "__main__":
    main()
