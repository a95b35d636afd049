"""Freed memory stays with the process, which a process of its own shows by its page faults."""

import subprocess
import sys

import pytest

FAULTS_OF_STEPS = """
import resource, sys
import numpy as np
from primus_scale.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    blocks = [np.ones(2**19) for _ in range(8)]  # 4 MB each

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of glibc")
def test_steps_take_no_new_pages() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS_OF_STEPS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") * 10 < faults("given back")
