"""Tab in a shell, and a help that comes at once."""

import resource
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from primus_scale.cli import main
from tests.documents import ROOT

HELP_CPU_S = 0.5


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "primus-scale"
    with file.open("w") as out, redirect_stdout(out):
        assert main(["completion", "bash"]) == 0
    return file


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ev", "evaluate"),
        ("shards sp", "split"),
        ("shards build gop", "gopro"),
        ("evaluate --test", "--test-people"),
        ("shards embed --order shu", "shuffled"),
        ("pretrain --config READ", "README.md"),
    ],
)
def test_bash_completes(script: Path, typed: str, completed: str) -> None:
    """As bash calls it, with the words before the cursor."""
    words = ["primus-scale", *typed.split()]
    code = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"_shtab_primus_scale primus-scale {words[-1]} {words[-2]}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (completed, "")


def test_help_takes_little_time_and_imports_little() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys; from primus_scale.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "few-shot evaluation" in done.stdout and "describe shard folders" in done.stdout
    for heavy in ("torch", "numpy", "pydantic", "yaml", "fsspec", "shtab"):
        assert f"'{heavy}'" not in done.stderr
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu_s < HELP_CPU_S
