"""Trains one configuration file after the other in this process, which is a rank of each run.

The process group is made here and serves all of them, as Ray's does under Ray. Each rank writes
what it hears at each validation to validations-RANK.json in the run's output.
"""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from primus_scale.config_file import load_config
from primus_scale.train.trainer import pretrain


def run(path: str) -> int:
    """Exit code of one run."""
    config, heard = load_config(path), []
    code = pretrain(config, on_validation=lambda *figures: heard.append(figures))
    file = Path(config.output) / f"validations-{dist.get_rank()}.json"
    file.write_text(json.dumps(heard), encoding="utf-8")
    return code


if __name__ == "__main__":
    dist.init_process_group("gloo")
    code = max(run(path) for path in sys.argv[1:])
    dist.destroy_process_group()
    sys.exit(code)
