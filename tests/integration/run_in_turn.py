"""Trains one configuration file after the other in this process, which is a rank of each run.

The process group is made here and serves all of them, as Ray's does under Ray.
"""

import sys

import torch.distributed as dist

from primus_scale.config_file import load_config
from primus_scale.train.trainer import pretrain

if __name__ == "__main__":
    dist.init_process_group("gloo")
    code = max(pretrain(load_config(path)) for path in sys.argv[1:])
    dist.destroy_process_group()
    sys.exit(code)
