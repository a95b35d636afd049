"""The configuration for a cluster: its batches are as its header says, on an index of its size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from primus_scale.config import Config
from primus_scale.config_file import load_config
from primus_scale.data.index import SessionPart
from primus_scale.data.schedule import Schedule
from primus_scale.data.session_order import (
    SessionOrder,
    SessionUnits,
    check_sessions,
    describe_sessions,
)
from primus_scale.engine.engine import check_batch
from primus_scale.objective.terms import check_objective, weighted_terms
from primus_scale.train.run import open_data
from shards.embed.order import WindowColumns, order_by_sessions
from tests.integration.tiny import write_shards

SCALE = Path(__file__).parents[2] / "configs" / "scale.yaml"
TAKES = 5000
HOP_S = 1.25


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(SCALE)


@pytest.fixture(scope="module")
def parts() -> list[list[SessionPart]]:
    """Records of 256 windows of takes of one to eight minutes, as they would be embedded."""
    lengths = np.random.default_rng(0).integers(60, 480, TAKES) / HOP_S
    session = np.repeat(np.arange(TAKES), lengths.astype(int))
    number = np.arange(len(session))
    start_s = HOP_S * (number - np.searchsorted(session, session))
    records = order_by_sessions(WindowColumns(number, session, session, start_s), 256, seed=0)
    counts = [Counter(session[record].tolist()) for record in records]
    return [[SessionPart(*each, HOP_S) for each in count.items()] for count in counts]


def test_all_terms_are_in_use_on_every_gpu(config: Config) -> None:
    assert len([*weighted_terms(config.objective)]) == 7
    check_batch(config.train, config.launch.workers)
    assert (config.train.batch // config.data.session_windows, config.encoder.pooling) == (
        512,
        "stats",
    )


def test_batches_hold_512_sessions_of_64_windows(
    config: Config, parts: list[list[SessionPart]]
) -> None:
    near, windows = config.objective.near, config.data.session_windows
    check_sessions(parts, near)
    line = describe_sessions(parts, windows, config.train.batch)
    assert line.startswith("batches of 512 sessions x 64 windows; sessions: 5000")
    assert "too few" not in line and "shorter" not in line
    units = SessionUnits(windows, near.min_s, near.max_s)
    order = SessionOrder(parts, units, config.data.shuffle_blocks, config.seed)
    schedule = Schedule(order, config.train.batch)
    of = [np.repeat([p.session for p in record], [p.windows for p in record]) for record in parts]
    for step in range(3):
        rows = schedule.batch_rows(step)
        held = Counter(of[r][w] for r, w in zip(rows.records, rows.rows, strict=True))
        assert sum(held.values()) == config.train.batch
        assert len(held) > 410  # two parts of a long take, or a unit of several, change a few


def test_a_small_index_is_checked_as_before_a_run(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", sessions=True)
    small = [f"data.train=[{shards}]", "train.batch=8", "data.session_windows=4"]
    config = load_config(SCALE, small)
    data = open_data(config, world=2)
    check_objective(config.objective, data.teachers)
    assert data.windows == 48
    with pytest.raises(ValueError, match=r"train\.batch is 32768, but data\.train holds 48"):
        open_data(load_config(SCALE, small[:1]), world=16)
