"""A process that holds a run's lock until it is told to end, for tests.

python -m tests.run_lock_holder FOLDER MACHINE     # MACHINE: "here", or the name of another
"""

import sys

from primus_scale.distributed import run_lock
from primus_scale.distributed.only_run import only_run

if __name__ == "__main__":
    folder, machine = sys.argv[1:]
    run_lock.BEAT_S = 1.0
    if machine != "here":
        run_lock.this_machine = lambda: machine
    with only_run(folder):
        print("held", flush=True)
        sys.stdin.read()
