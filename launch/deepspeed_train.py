"""Pretraining under a launcher that starts the ranks itself.

    deepspeed --num_gpus 8 launch/deepspeed_train.py --config configs/scale.yaml [key=value ...]
    srun -n 16 python launch/deepspeed_train.py --config configs/scale.yaml
    torchrun --nproc-per-node 8 launch/deepspeed_train.py --config configs/scale.yaml

On a machine without GPUs ``--num_gpus`` counts processes.

SIGTERM to a rank makes all ranks save a checkpoint and exit with 75; Ctrl-C the same, with 130; a
second Ctrl-C ends them at once. The same command continues the run. Ranks also save and exit when
their launcher gets SIGTERM or ends, even by SIGKILL (``ancestry``). Only ``srun`` kills its ranks
at SIGTERM: use ``scancel --signal=TERM JOB`` instead. ``srun`` and ``launch.ray_train`` exit with
75, too. ``deepspeed`` and ``torchrun`` have exit codes of their own, and 30 s after a signal they
kill ranks that still write. Where a scheduler requeues by exit code, use ``srun``
(launch/slurm/pretrain.sbatch) or Ray.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from launch.ancestry import stop_with_launcher  # first: it finds the launcher, which may end
from primus_scale.allocator import keep_freed_memory
from primus_scale.cli import GOES_ON, answer
from primus_scale.command_parser import Parser, add_config_arguments
from primus_scale.config_file import load_config
from primus_scale.train.trainer import REQUEUE, pretrain


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one rank. A user's error: one line on stderr, and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    keep_freed_memory()

    def train() -> int:
        config = load_config(args.config, args.overrides)
        with stop_with_launcher(REQUEUE) as stop:
            return pretrain(config, stop)

    return answer(parser.prog, train, GOES_ON)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="deepspeed_train.py", description="Pretrain as one rank of many.")
    add_config_arguments(parser)
    # The deepspeed launcher adds it; LOCAL_RANK in the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    return parser


def exit_rank(code: int) -> NoReturn:
    """End this rank with ``code``, at once.

    C++ threads of the process group may abort the interpreter at its normal end; the scheduler
    would see SIGABRT instead of the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader may have ended
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    exit_rank(main())
