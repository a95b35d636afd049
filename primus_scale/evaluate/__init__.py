"""Few-shot evaluation: how much a pretrained encoder helps on people it never saw.

``evaluate`` is the command, from an exported encoder and shards to a report; ``run_few_shot`` the
same on arrays in memory; ``pool`` joins the results of several runs, ``pool_reports`` their files.
"""

from primus_scale.evaluate.command import (
    evaluate,
    log_confusion,
    pool_reports,
    write_results,
    write_summary,
)
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.evaluate.pooling import pool
from primus_scale.evaluate.protocol import run_few_shot
from primus_scale.evaluate.results import format_table

__all__ = [
    "LabelledWindows",
    "evaluate",
    "format_table",
    "log_confusion",
    "pool",
    "pool_reports",
    "run_few_shot",
    "write_results",
    "write_summary",
]
