"""Checks before a long run, on every node: faults that would break or slow it hours later.

    python -m launch.preflight --config configs/demo.yaml [key=value ...] [--json FILE]
    deepspeed --num_gpus 8 launch/preflight.py --config configs/scale.yaml
    srun -n 16 python launch/preflight.py --config configs/scale.yaml

Start it as the run will be started. Under a launcher each process is one rank. Without one, it
starts ``launch.workers`` workers with Ray, as ``launch.ray_train`` does, or is the only rank. It
prints a row for each finding. If one is FAIL, it prints the reasons on stderr and exits with 1.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, TrainingFailedError

from launch.ancestry import stop_with_launcher
from launch.checks import memory, network, node, step, storage
from launch.checks.base import (
    ALL,
    FAIL,
    CheckFinding,
    Context,
    GroupBrokenError,
    Watch,
    explain_error,
    new_scratch,
    run_checks,
)
from launch.checks.storage import removed_afterwards
from launch.deepspeed_train import exit_rank
from launch.ray_cluster import (
    connected,
    driver_actor,
    first_cause,
    support_placement_group,
    worker_trainer,
)
from primus_scale.cli import answer
from primus_scale.command_parser import Parser, add_config_arguments
from primus_scale.config import Config
from primus_scale.config_file import load_config, parse_config
from primus_scale.distributed.group import is_launched, join_group, stop_runtime
from primus_scale.storage.files import check_writable, write_atomically
from shards.tasks.local import runs_in_process

# The step is last, since it needs most of the others.
CHECKS = (*node.CHECKS, *storage.CHECKS, *memory.CHECKS, *network.CHECKS, *step.CHECKS)

POLL_S = 0.5  # between requests for findings of Ray's workers

Publish = Callable[[list[CheckFinding]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks, as one rank or for all. A user's error: one line on stderr, exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _check(args), "start it again")


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="preflight", description="Check, on every node, what a run needs.")
    add_config_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="rank 0 writes the findings there as well")
    # The deepspeed launcher adds it; LOCAL_RANK in the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    return parser


def _check(args: argparse.Namespace) -> int:
    """The exit code of the checks."""
    report, rank = Report(), 0
    config = load_config(args.config, args.overrides)
    alone = config.launch.worker_counts == range(1, 2) and runs_in_process(1)
    check = check_as_rank if is_launched() or alone else check_with_ray
    try:
        with stop_with_launcher(exit_code=1, grace_s=0.0):
            passed = check(config, report.publish)
    except GroupBrokenError as error:
        passed, rank = False, error.rank
    report.print_reasons()
    if args.json and rank == 0 and report.findings:
        report.write(Path(args.json), config)
    return 0 if passed else 1


def check_as_rank(config: Config, publish: Publish, placement_group: Any = None) -> bool:
    """Run all checks as one rank of those that were started; whether none failed.

    publish: called with findings on rank 0; also on a rank that fails alone, before it raises
    ``GroupBrokenError``. placement_group: as ``pretrain`` takes it.
    """
    missing_device = ""
    try:
        runtime = join_group(config.train)
    except ValueError as error:
        # The other ranks wait for this one, and most checks run on the CPU as well.
        missing_device = str(error)
        runtime = join_group(config.train.model_copy(update={"device": "cpu"}))
    try:
        with Watch(config.train.stuck_after_s) as watch:
            context = Context(config, runtime, watch, missing_device, placement_group)
            with storage.files_removed(context):
                return run_checks(CHECKS, context, publish)
    except GroupBrokenError as error:
        publish(error.findings)
        raise
    finally:
        stop_runtime(runtime)


def check_with_ray(config: Config, publish: Publish) -> bool:
    """Run all checks in workers that Ray starts as for the run; whether none failed.

    ValueError where it has no resources for them.
    """
    with (
        connected(config),
        support_placement_group(config) as placement_group,
        _ray_storage(config) as storage_path,
    ):
        findings = driver_actor(FindingStore)
        run_config = RunConfig(name="preflight", storage_path=str(storage_path.absolute()))
        settings = {"findings": findings, "placement_group": placement_group}
        trainer = worker_trainer(_check_in_worker, config, settings, run_config)
        try:
            with _published(findings, publish) as found:
                trainer.fit()
        except TrainingFailedError as error:
            if not _any_failed(found):  # otherwise this error follows from that failure
                publish([CheckFinding("workers", ALL, FAIL, explain_error(first_cause(error)))])
            return False
    return not _any_failed(found)


class FindingStore:
    """An actor that holds findings of workers for the driver, also if a worker fails then."""

    def __init__(self) -> None:
        self._findings: list[CheckFinding] = []

    def put(self, findings: list[CheckFinding]) -> None:
        """Add findings."""
        self._findings += findings

    def take(self) -> list[CheckFinding]:
        """All findings since the last call."""
        taken, self._findings = self._findings, []
        return taken


@contextmanager
def _published(findings: Any, publish: Publish) -> Iterator[list[CheckFinding]]:
    """The findings of workers during the block, published as they come."""
    found: list[CheckFinding] = []
    done = threading.Event()

    def take() -> None:
        if new := ray.get(findings.take.remote()):
            found.extend(new)
            publish(new)

    def watch() -> None:
        while not done.wait(POLL_S):
            take()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        take()


def _any_failed(findings: list[CheckFinding]) -> bool:
    return any(finding.result == FAIL for finding in findings)


def _check_in_worker(settings: dict[str, Any]) -> None:
    """The checks of one worker. It raises only to end the others, which would wait for it."""
    config = parse_config(Config, settings["config"], source="the driver")
    findings = settings["findings"]
    try:
        check_as_rank(
            config, lambda new: ray.get(findings.put.remote(new)), settings["placement_group"]
        )
    except GroupBrokenError:
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # or Ray logs a traceback
        raise


@contextmanager
def _ray_storage(config: Config) -> Iterator[Path]:
    """A folder for Ray's records: in the output, which all machines share, if it can be written."""
    with removed_afterwards(new_scratch(config.output)) as folder:
        try:
            check_writable(folder)
        except OSError:  # the check of the output reports it
            with tempfile.TemporaryDirectory() as elsewhere:
                yield Path(elsewhere)
        else:
            yield folder


class Report:
    """Prints findings as rows of a table, then the reasons on stderr, and writes them as JSON."""

    def __init__(self) -> None:
        self.findings: list[CheckFinding] = []

    def publish(self, findings: list[CheckFinding]) -> None:
        """Add findings, and print them. Widths are fixed, since more rows may follow."""
        if not self.findings:
            print(_row("check", "node", "result", "detail"))
        for each in findings:
            print(_row(each.check, each.node, each.result, each.detail), flush=True)
        self.findings += findings

    def print_reasons(self) -> None:
        """A line on stderr for each failure."""
        for each in self.findings:
            if each.result == FAIL:
                print(f"preflight: {each.check} on {each.node}: {each.detail}", file=sys.stderr)

    def write(self, path: Path, config: Config) -> None:
        """Write the findings as JSON; OSError where that fails."""
        tree = {"run": config.name, "findings": [asdict(each) for each in self.findings]}
        write_atomically(path, json.dumps(tree, indent=1) + "\n")


def _row(check: str, node: str, result: str, detail: str) -> str:
    return f"{check:<11}  {node:<16}  {result:<6}  {detail}"


if __name__ == "__main__":
    exit_rank(main())
