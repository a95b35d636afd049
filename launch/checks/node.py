"""Checks of each node by itself: batch arithmetic, versions of code and packages, devices."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from launch.checks.base import FAIL, OK, WARN, Check, CheckFinding, Context, Result, format_bytes
from launch.ray_cluster import check_workers
from primus_scale.counted import counted
from primus_scale.engine.engine import check_batch
from primus_scale.monitor.provenance import describe_environment, installed_version

PROJECT = "primus-scale"
SOURCES = ("primus_scale", "shards", "launch")
SHOWN_PACKAGES = ("torch", "deepspeed", "ray")  # packages whose versions are in the table


def measure_batch(context: Context) -> str:
    """The batch arithmetic in one line; ValueError where it does not divide."""
    check_workers(context.config)
    config = context.config
    return check_batch(config.train, context.runtime.world, config.data.session_windows)


def judge_batch(context: Context, lines: list[str]) -> list[CheckFinding]:
    """The same line from every rank."""
    return context.findings("batch", OK, dict(enumerate(lines)))


def measure_versions(context: Context) -> dict[str, Any]:
    """Digest of the code, versions of Python and packages, and what is below ``setup.py``'s."""
    required = core_requirements()
    environment = describe_environment()
    packages = environment["packages"] | {
        name: installed_version(name) or "absent" for name in (each.name for each in required)
    }
    return {
        "commit": (environment["commit"] or "")[:7] or "no commit",
        "versions": {"code": code_digest(), "Python": environment["python"], **packages},
        "below": [
            f"{each.name} is {packages[each.name]}, setup.py wants {each.specifier}"
            for each in required
            if not each.specifier.contains(packages[each.name], prereleases=True)
        ],
    }


def judge_versions(context: Context, ranks: list[dict[str, Any]]) -> list[CheckFinding]:
    """All ranks must have the versions of rank 0, and these must be new enough."""
    first = ranks[0]["versions"]
    wrong: dict[int, str] = {}
    for rank, each in enumerate(ranks):
        own = each["versions"]
        problems = each["below"] + [
            f"{name} is {here}, on {context.nodes[0]} {there}"
            for name in sorted(first.keys() | own.keys())
            if (here := own.get(name, "absent")) != (there := first.get(name, "absent"))
        ]
        if problems:
            wrong[rank] = "; ".join(problems) + "; install the same on every node"
    if wrong:
        return context.findings("versions", FAIL, wrong)
    shown = ", ".join(f"{name} {first[name]}" for name in ("Python", *SHOWN_PACKAGES))
    detail = f"code {first['code']} ({ranks[0]['commit']}), {shown}"
    return context.findings("versions", OK, dict.fromkeys(range(len(ranks)), detail))


def core_requirements() -> list[Requirement]:
    """What ``setup.py`` wants of every installation; nothing where it is not installed."""
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:
        return []
    requirements = map(Requirement, lines)
    return [each for each in requirements if each.marker is None or each.marker.evaluate()]


def code_digest() -> str:
    """Digest of the source of the three packages, committed or not."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def measure_devices(context: Context) -> dict[str, Any]:
    """The device this rank computes on, what else it sees, and the cores it may use."""
    device = context.runtime.device
    name, uuid = "CPU", ""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{properties.name} ({format_bytes(properties.total_memory)})"
        uuid = str(properties.uuid)
    return {
        "kind": device.type,
        "name": name,
        "uuid": uuid,
        "missing": context.missing_device,
        "gpus": torch.cuda.device_count(),
        "cores": sorted(os.sched_getaffinity(0)),
    }


def judge_devices(context: Context, ranks: list[dict[str, Any]]) -> list[CheckFinding]:
    """Each rank has the device that the configuration asks for, of its own, and a core."""
    wrong = {
        rank: problem
        for rank, each in enumerate(ranks)
        if (problem := _device_problem(context, each, ranks))
    }
    if wrong:
        return context.findings("devices", FAIL, wrong)
    findings = []
    names = {each["name"] for each in ranks}
    for node, there in context.ranks_by_node().items():
        cores = len(set().union(*(ranks[rank]["cores"] for rank in there)))
        needed = len(there) * max(context.config.train.threads, 1)
        of_node = sorted({ranks[rank]["name"] for rank in there})
        detail = f"{counted(len(there), 'rank')} on {', '.join(of_node)}; {counted(cores, 'core')}"
        result: Result = OK
        if cores < needed:
            result = WARN
            detail += f", fewer than the {needed} threads that the ranks compute with"
        if len(names) > 1:
            result = WARN
            detail += f"; the slowest kind of {', '.join(sorted(names))} sets the pace"
        findings.append(CheckFinding("devices", node, result, detail))
    return findings


def _device_problem(context: Context, own: dict[str, Any], ranks: list[dict[str, Any]]) -> str:
    if own["missing"]:
        return str(own["missing"])
    launch = context.config.launch
    if launch.gpus_per_worker > 0 and not own["gpus"]:
        return (
            f"launch.gpus_per_worker={launch.gpus_per_worker:g}, but torch sees no CUDA device; "
            "mend the driver, or use launch.gpus_per_worker=0"
        )
    if own["kind"] != "cuda" and any(each["kind"] == "cuda" for each in ranks):
        return "torch sees no CUDA device, other ranks have one; mend the driver"
    if own["kind"] == "cuda" and sum(each["uuid"] == own["uuid"] for each in ranks) > 1:
        return (
            f"several ranks compute on {own['name']} {own['uuid']}; start as many ranks a node as "
            "it has GPUs"
        )
    return ""


CHECKS = (
    Check("batch", measure_batch, judge_batch),
    Check("versions", measure_versions, judge_versions),
    Check("devices", measure_devices, judge_devices),
)
