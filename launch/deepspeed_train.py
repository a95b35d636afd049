"""Pretraining under a launcher that starts the ranks itself.

    deepspeed --num_gpus 8 launch/deepspeed_train.py --config configs/scale.yaml [key=value ...]
    srun -n 16 python launch/deepspeed_train.py --config configs/scale.yaml
    torchrun --nproc-per-node 8 launch/deepspeed_train.py --config configs/scale.yaml

On a machine without GPUs ``--num_gpus`` counts processes.

SIGTERM to a rank makes all ranks save a checkpoint and exit with 75; the same command continues
the run. ``srun`` hands signal and exit code on, as ``launch.ray_train`` does. The other two
launchers exit with codes of their own and kill after 30 s the ranks that still write, and
``deepspeed`` hands on nothing unless its process group is signalled (``kill -TERM -PGID``): where
a scheduler requeues by exit code, use ``srun`` or Ray.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from primus_scale.cli import USER_ERRORS, Parser, add_config_arguments
from primus_scale.config_file import load_config
from primus_scale.trainer import pretrain


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one rank; a user's error is one line on stderr and exit code 1."""
    parser = Parser(prog="deepspeed_train.py", description="Pretrain as one rank of many.")
    add_config_arguments(parser)
    # The deepspeed launcher adds it; LOCAL_RANK in the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        return pretrain(load_config(args.config, args.overrides))
    except USER_ERRORS as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: where the process group's C++ threads still run at the interpreter's end, it aborts,
    # and the scheduler would see SIGABRT instead of the exit code.
    os._exit(code)
