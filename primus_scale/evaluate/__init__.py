"""Few-shot evaluation: how much a pretrained encoder helps on people it never saw.

``evaluate`` is the command, from an exported encoder and shards to a report; ``run_few_shot`` the
same on arrays in memory; ``pool`` joins the results of several runs, ``pool_reports`` their files.
"""

from primus_scale.evaluate.command import evaluate, pool_reports, write_results
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.evaluate.pooling import pool
from primus_scale.evaluate.protocol import run_few_shot
from primus_scale.evaluate.results import format_table
from primus_scale.evaluate.run_folder import (
    evaluate_run,
    log_few_shot,
    pretraining_seconds_of,
    write_summary,
)

__all__ = [
    "LabelledWindows",
    "evaluate",
    "evaluate_run",
    "format_table",
    "log_few_shot",
    "pool",
    "pool_reports",
    "pretraining_seconds_of",
    "run_few_shot",
    "write_results",
    "write_summary",
]
