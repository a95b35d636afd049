"""How long the tests took, at the end of a run: each folder, the slowest files, the slowest tests.

Seconds are of the clock, set-up and tear-down included. CPU seconds are of the process that ran the
test and of those it has waited for, so that what Ray or a launcher leaves to the system is missing.
Under xdist each worker measures, and its reports carry the figures.
"""

import resource
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

import pytest

from tests import fork_server

SHOWN = 20
SLOW_S = 1.0  # below it a file or a test is not worth a line
_CPU_S = "cpu_s"
_at_last_report = {"self": 0.0}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> None:
    """What follows is spent by the test; what went before was not, or has been counted."""
    _at_last_report["self"] = _cpu_s()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    """Leave the CPU seconds of this phase where its report takes them from."""
    now = _cpu_s()
    item.user_properties[:] = [(_CPU_S, now - _at_last_report["self"])]
    _at_last_report["self"] = now


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the three tables."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if isinstance(report, pytest.TestReport)
    ]
    terminalreporter.section("seconds, CPU seconds, tests")
    for title, key in (
        ("folders", _folder),
        ("slowest files", _file),
        ("slowest tests", lambda report: report.nodeid),
    ):
        rows = _table(reports, key)
        if title != "folders":
            rows = [row for row in rows[:SHOWN] if row[0] >= SLOW_S]
        if rows:
            terminalreporter.line(f"{title}:")
        for wall_s, cpu_s, tests, name in rows:
            terminalreporter.line(f"{wall_s:8.1f} {cpu_s:8.1f} {tests:6d}  {name}")


def _table(
    reports: Iterable[pytest.TestReport], key: Callable[[pytest.TestReport], str]
) -> list[tuple[float, float, int, str]]:
    """Seconds, CPU seconds and number of tests of each name that ``key`` gives, slowest first."""
    wall_s: dict[str, float] = defaultdict(float)
    cpu_s: dict[str, float] = defaultdict(float)
    tests: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        name = key(report)
        wall_s[name] += report.duration
        cpu_s[name] += dict(report.user_properties).get(_CPU_S, 0.0)
        tests[name].add(report.nodeid)
    rows = ((wall_s[name], cpu_s[name], len(tests[name]), name) for name in wall_s)
    return sorted(rows, reverse=True)


def _file(report: pytest.TestReport) -> str:
    return report.nodeid.partition("::")[0]


def _folder(report: pytest.TestReport) -> str:
    return str(PurePosixPath(_file(report)).parent)


def _cpu_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own = sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
    return own + fork_server.cpu_s()
