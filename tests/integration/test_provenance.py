"""A run names the commit of the program's own checkout, and of no other that it lies in."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.integration.tiny import ROOT


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *author, *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def repository(folder: Path) -> str:
    """A repository with one file; returns its commit."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "own.py").write_text("")
    git(folder, "add", "own.py")
    git(folder, "commit", "--quiet", "--message=Begin")
    return git(folder, "rev-parse", "HEAD")


def described(packages: Path, **variables: str) -> dict[str, Any]:
    """What the copy of the package below ``packages`` tells of itself."""
    code = (
        "import json; from primus_scale.monitor import provenance; "
        "print(json.dumps([provenance.__file__, provenance.describe_environment()]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(packages), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=packages, check=True, capture_output=True, text=True
    )
    file, found = json.loads(done.stdout)
    assert Path(file).is_relative_to(packages)
    return dict(found)


def test_commit_is_that_of_the_programs_own_checkout(tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    installed = tmp_path / "other/.venv/lib"
    shutil.copytree(ROOT / "primus_scale", installed / "primus_scale")  # compiled files as well
    found = described(installed)
    assert (found["commit"], found["uncommitted_changes"]) == (None, None)
    assert found["packages"]["primus-scale"] == version("primus-scale")

    git(tmp_path / "other", "add", "--force", ".venv")
    git(tmp_path / "other", "commit", "--quiet", "--message=Add")
    own = git(tmp_path / "other", "rev-parse", "HEAD")
    assert own != other
    with (installed / "primus_scale/monitor/provenance.py").open("a") as file:
        file.write("\n")
    found = described(installed, GIT_DIR=str(ROOT / ".git"))  # as within a hook of another
    assert (found["commit"], found["uncommitted_changes"]) == (own, True)
