"""``make`` does again what did not end well."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.tiny import ROOT

# In the place of the program, which takes minutes: verify says no until there is a file "good".
STAND_IN = """#!/bin/sh
echo "$2" >> steps
case "$2" in
  build) mkdir -p data/few_shot/test && touch data/few_shot/test/index.json ;;
  embed) mkdir -p "$6" && touch "$6/index.json" ;;
  verify) test -e good ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require(shutil.which("make"), "make is not installed")
    requirements = [path.name for path in ROOT.glob("requirements-*.txt")]
    for name in ("setup.py", "constraints.txt", *requirements, "installed"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/primus-scale").write_text(STAND_IN)
    (tmp_path / "bin/primus-scale").chmod(0o755)
    return tmp_path


def make_steps(folder: Path) -> list[str]:
    """The steps that this call of make has run."""
    (folder / "steps").write_text("")
    settings = ("BIN=bin", "DATA=data", "SETUP=installed")
    command = ("make", "-f", str(ROOT / "Makefile"), *settings, "data/packed/train/index.json")
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return (folder / "steps").read_text().split()


def test_shards_that_failed_to_verify_are_made_and_verified_again(folder: Path) -> None:
    assert make_steps(folder) == ["build", "embed", "verify"]
    assert make_steps(folder) == ["embed", "verify"]
    (folder / "good").touch()
    assert make_steps(folder) == ["embed", "verify"]
    assert make_steps(folder) == []
