"""One rank of a run, on a machine of its own: its output is a folder that other ranks do not see.

run_apart.py FOLDER --config FILE [key=value ...]           # writes to FOLDER/node-RANK
"""

import os
import sys

from launch.deepspeed_train import exit_rank, main

if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    output = f"{folder}/node-{os.environ['RANK']}"
    os.environ["LOCAL_RANK"] = "0"
    exit_rank(main([*arguments, f"output={output}"]))
