"""A check measures something on every rank, then judges the measurements of all ranks.

    passed = run_checks(CHECKS, context, publish)

Measuring is apart from judging, so that ranks stay together: a rank whose data are missing still
takes part in the gathering, and all ranks go on to the next check. Judges are pure functions of the
measurements, in the order of the ranks.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

from primus_scale.cli import USER_ERRORS
from primus_scale.config import Config
from primus_scale.data.fraction import open_training
from primus_scale.data.shard_set import ShardSet
from primus_scale.distributed.collectives import gather_json
from primus_scale.distributed.group import Runtime
from primus_scale.distributed.pulse import pulse
from primus_scale.distributed.watchdog import watched
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience

Result = Literal["ok", "warn", "FAIL"]
OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "FAIL"
ALL = "all"


@dataclass(frozen=True)
class CheckFinding:
    """One row of the table: a check's result and detail, on a node, on a rank of it, or on ALL."""

    check: str
    node: str
    result: Result
    detail: str


class GroupBrokenError(Exception):
    """A rank failed, or saw another rank fail, in a check where ranks wait for each other.

    It must then exit, which ends the other ranks. findings: to print before. rank: which raises.
    """

    def __init__(self, findings: list[CheckFinding], rank: int) -> None:
        super().__init__(findings, rank)  # these arguments, so that Ray can pickle it
        self.findings = findings
        self.rank = rank

    def __str__(self) -> str:
        return "; ".join(finding.detail for finding in self.findings)


class Watch:
    """The watchdog over all ranks; every rank enters it at the same time.

    If a rank halts, the others name it and end with exit code 1.
    """

    def __init__(self, stuck_after_s: float) -> None:
        self._stuck_after_s = stuck_after_s
        self._watched = ExitStack()

    def __enter__(self) -> Self:
        self._watched.enter_context(watched(self._stuck_after_s, exit_code=1))
        return self

    def __exit__(self, *exception: object) -> None:
        self._watched.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop watching during the block, which has a watchdog of its own."""
        self._watched.close()
        yield
        self.__enter__()  # not after a failure: other ranks may not enter it


class Context:
    """The run that is to start, as checks see it. Every rank makes one at the same time.

    watch: entered already. missing_device: why this rank lacks its device, in which case it
    computes on the CPU. placement_group: as ``pretrain`` takes it. nodes: the node of each rank.
    scratch: a folder in the output for files of checks. shared: the folder through which the ranks
    of the run exchange checkpoints: one at ``train.storage``, or ``scratch``.
    """

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        watch: Watch,
        missing_device: str = "",
        placement_group: Any = None,
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.watch = watch
        self.missing_device = missing_device
        self.placement_group = placement_group
        ranks = gather_json({"node": node_name(), "scratch": str(new_scratch(config.output))})
        self.nodes: list[str] = [rank["node"] for rank in ranks]
        self.scratch = Path(ranks[0]["scratch"])
        self.shared = Folder(str(self.scratch))
        if config.train.storage:
            self.shared = Folder(f"{config.train.storage}/{self.scratch.name}", self.no_patience)

    @cached_property
    def data(self) -> ShardSet:
        """The training shards; errors as ``open_training``."""
        return open_training(self.config.data, self.no_patience)

    @cached_property
    def held_out(self) -> ShardSet | None:
        """The validation shards, where there are any; errors as ``ShardSet.open``."""
        urls = self.config.data.validation
        return ShardSet.open(urls, self.no_patience) if urls else None

    @property
    def no_patience(self) -> Patience:
        """No waiting for storage: a check reports a fault at once, where a run would wait."""
        return Patience(self.config.data.timeout_s, total_s=0.0)

    def ranks_by_node(self) -> dict[str, list[int]]:
        """Nodes in the order of their first rank, with their ranks."""
        nodes: dict[str, list[int]] = {}
        for rank, node in enumerate(self.nodes):
            nodes.setdefault(node, []).append(rank)
        return nodes

    def places(self, ranks: Sequence[int]) -> list[str]:
        """How the table names ``ranks``: all of a node by the node, all of the run by ``ALL``."""
        if list(ranks) == list(range(len(self.nodes))):
            return [ALL]
        names = []
        for node, there in self.ranks_by_node().items():
            among = [rank for rank in there if rank in ranks]
            if among == there:
                names.append(node)
            elif among:
                names.append(f"{node} rank {','.join(map(str, among))}")
        return names

    def findings(self, check: str, result: Result, details: dict[int, str]) -> list[CheckFinding]:
        """A finding for each rank in ``details``; equal ones of a node, or of all, are joined."""
        by_detail: dict[str, list[int]] = {}
        for rank, detail in sorted(details.items()):
            by_detail.setdefault(detail, []).append(rank)
        return [
            CheckFinding(check, place, result, detail)
            for detail, ranks in by_detail.items()
            for place in self.places(ranks)
        ]


@dataclass(frozen=True)
class Check:
    """One check.

    measure: runs on every rank; returns JSON; an exception fails the check.
    judge: the findings, from all ranks' measurements. needs: checks that must have passed
    before. together: ranks wait for each other in ``measure``.
    """

    name: str
    measure: Callable[[Context], Any]
    judge: Callable[[Context, list[Any]], list[CheckFinding]]
    needs: tuple[str, ...] = ()
    together: bool = False


def format_bytes(size: float) -> str:
    """Bytes as text: 1.23 GB (10^9 bytes), 45.6 MB, 7.89 kB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return (
                f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size / unit:,.0f} {name}"
            )
    return f"{size / 1e3:.3g} kB"


def new_scratch(output: str) -> Path:
    """A folder in the output that is not there yet."""
    return Path(output) / f".preflight-{secrets.token_hex(4)}"


def node_name() -> str:
    """Name of this machine; SLURM's name of it where several of its nodes are one machine."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def run_checks(
    checks: Sequence[Check], context: Context, publish: Callable[[list[CheckFinding]], None]
) -> bool:
    """Run ``checks`` in turn, on every rank at the same time; whether none failed.

    publish: called on rank 0 with the findings of each check. ``GroupBrokenError``
    where a rank fails in a check for which ranks wait for each other.
    """
    failed: set[str] = set()
    for check in checks:
        missing = [name for name in check.needs if name in failed]
        if missing:
            failed.add(check.name)
            detail = f"not run, since it needs: {', '.join(missing)}"
            findings = [CheckFinding(check.name, ALL, WARN, detail)]
        else:
            findings = _run(check, context)
            if any(finding.result == FAIL for finding in findings):
                failed.add(check.name)
        if context.runtime.rank == 0:
            publish(findings)
    return not failed


def _run(check: Check, context: Context) -> list[CheckFinding]:
    outcome: dict[str, Any] = {}
    pulse.at(f"check: {check.name}")
    try:
        outcome["value"] = check.measure(context)
    except Exception as error:  # of any kind: the run would fail by it, too
        if check.together and len(context.nodes) > 1:
            raise _broken(check, context, error) from error
        outcome["error"] = explain_error(error)
    try:
        outcomes = gather_json(outcome)
    except RuntimeError as error:  # another rank has ended
        raise _broken(check, context, error) from error
    errors = {rank: each["error"] for rank, each in enumerate(outcomes) if "error" in each}
    if errors:
        return context.findings(check.name, FAIL, errors)
    return check.judge(context, [each["value"] for each in outcomes])


def _broken(check: Check, context: Context, error: Exception) -> GroupBrokenError:
    rank = context.runtime.rank
    return GroupBrokenError(context.findings(check.name, FAIL, {rank: explain_error(error)}), rank)


def explain_error(error: Exception) -> str:
    """The error in one line; with its class if its message is not written for users."""
    text = " ".join(str(error).split())
    return text if isinstance(error, USER_ERRORS) and text else f"{type(error).__name__}: {text}"
