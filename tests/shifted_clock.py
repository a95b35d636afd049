"""Programs whose wall clock goes wrong, for tests: in all of their code, not in Python only.

environment = shifted_clock(tmp_path, 3600)       # to be added to that of a program
start_ranks(2, LAUNCHER, ..., own={1: environment})
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import require

SOURCE = Path(__file__).with_suffix(".c")


def shifted_clock(folder: Path, seconds: int) -> dict[str, str]:
    """Variables under which programs find the wall clock ``seconds`` ahead of what it is.

    They have a library preloaded, built in ``folder``. Skips (fails in CI) without a C compiler.
    """
    require(shutil.which("cc"), "no C compiler (cc) is installed")
    library = folder / f"clock{seconds:+d}.so"
    options = ("-shared", "-fPIC", f"-DSHIFT_S=({seconds})", "-o", str(library))
    subprocess.run(["cc", *options, str(SOURCE)], check=True)
    variables = {"LD_PRELOAD": str(library)}
    command = (sys.executable, "-c", "import time; print(time.time())")
    seen = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert abs(float(seen.stdout) - time.time() - seconds) < 60, "the clock is not shifted"
    return variables
