"""As ``run_in_turn``, and each rank lists the windows it trained on in ``output/uids-RANK.jsonl``.

The number of a step is DeepSpeed's own count of updates, which comes back with a checkpoint.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from primus_scale.config_file import load_config
from primus_scale.engine.engine import Engine
from primus_scale.sample import Batch
from primus_scale.train import trainer
from primus_scale.train.step import StepResult, train_step


def pretrain(path: str) -> int:
    config = load_config(path)

    def step_and_list(engine: Engine, views: Any, batch: Batch, *others: Any) -> StepResult:
        record = {"step": engine.deepspeed.global_steps + 1, "uids": batch.uid.tolist()}
        with (Path(config.output) / f"uids-{dist.get_rank()}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        return train_step(engine, views, batch, *others)

    trainer.train_step = step_and_list
    return trainer.pretrain(config)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    code = max(pretrain(path) for path in sys.argv[1:])
    dist.destroy_process_group()
    sys.exit(code)
