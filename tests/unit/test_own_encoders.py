"""Encoders by ``module:function``: the example of the documents, and every way to get it wrong."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primus_scale.augment import build_augment
from primus_scale.config import FewShotConfig
from primus_scale.config_file import apply_overrides
from primus_scale.evaluate import pool, run_few_shot
from primus_scale.evaluate.arms import TaskWindows
from primus_scale.evaluate.finished_work import FinishedWork
from primus_scale.evaluate.own_encoders import check_sources, own_features
from primus_scale.evaluate.report import render_report
from primus_scale.evaluate.results import format_table
from tests.documents import ROOT, blocks
from tests.few_shot_task import CLASSES, RATE_HZ, SmallEncoder, few_penalties, make_side  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_penalties")
LABEL, TEST = make_side(range(4)), make_side(range(10, 12))
WINDOWS = TaskWindows(
    LABEL.imu, LABEL.label, LABEL.person, LABEL.session, len(CLASSES), RATE_HZ, len(LABEL)
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module ``written_here``, on Python's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "written_here.py"
    sys.modules.pop("written_here", None)


def run(source: str, finished: FinishedWork | None = None) -> dict:
    settings = {"arms": ("features",), "k": (2,), "draws": 2}
    config = apply_overrides(FewShotConfig(**settings), [f"own={{mine: {source}}}"])
    return run_few_shot(
        LABEL, TEST, SmallEncoder(1), SmallEncoder, build_augment(()), config,
        report=lambda _: None, finished=finished,
    )  # fmt: skip


def test_the_example_of_the_documents_is_an_arm_with_differences_in_table_and_report(
    module: Path,
) -> None:
    (example,) = blocks(ROOT / "docs/arms.md", "python")
    module.write_text(example.text)
    results = run("written_here:features")
    assert list(results["few_shot"]["2"]) == ["features", "mine"]
    assert results["few_shot"]["2"]["mine"]["mean"] > 0.5  # chance is 1/3
    assert list(results["paired"]["2"]) == ["mine"]
    assert list(results["paired"]["2"]["mine"]) == ["features"]
    text = format_table(results)
    assert "mine, frozen + linear - hand-crafted features" in text
    page = render_report(results)
    assert "<code>written_here:features</code>" in page
    assert "Collapsed" not in page
    assert 'class="lead"' not in page
    other = {**results, "runs": [{**results["runs"][0], "split": 1}]}
    other["records"] = [{**record, "split": 1} for record in results["records"]]
    assert pool([results, other])["few_shot"]["2"]["mine"]["draws"] == 4


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('layer3')", "failed on imu .96, 6, 50. float32 at 50 Hz .KeyError"),
        ("return imu.mean(2)[0]", r"returned shape \(6,\) for 96 windows; return features \(96, D"),
        ("return imu.mean(2)[1:]", r"returned shape \(95, 6\) for 96 windows"),
        ("return imu.mean(2)[:, :0]", r"returned shape \(96, 0\)"),
        ("return ['a'] * len(imu)", "ValueError: could not convert"),
        ("return imu.std(2) / (imu.std(2) > 2)", "returned NaN or infinity for .* of 96 windows"),
        ("return imu.mean(2) - imu.mean((0, 2))", "other features when it is given alone"),
        ("return imu.mean(2) + np.random.rand(len(imu), 1)", "on the other windows or on chance"),
    ],
)
def test_what_a_function_does_wrong_is_told_with_its_name(
    module: Path, body: str, said: str
) -> None:
    module.write_text(
        "import numpy as np\n\ndef encode(imu, rate_hz):\n"
        f"    with np.errstate(all='ignore'):\n        {body}\n"
    )
    with pytest.raises(ValueError, match=rf"few_shot.own.mine: written_here:encode .*{said}"):
        own_features("mine", "written_here:encode", WINDOWS, True)


def test_modules_functions_and_folders_that_are_not_there_are_named(module: Path) -> None:
    module.write_text("def encode(imu, rate_hz):\n    return imu.mean(2)\n")
    for source, error, said in (
        ("written_her:encode", ValueError, "module written_her cannot be imported .*PYTHONPATH"),
        ("written_here:encoed", ValueError, "no function encoed; the nearest is 'encode'"),
        (str(module.parent / "gone"), FileNotFoundError, "gone holds no complete exported encoder"),
    ):
        with pytest.raises(error, match=f"few_shot.own.mine: .*{said}"):
            own_features("mine", source, WINDOWS, True)
        with pytest.raises(error, match=f"few_shot.own.mine: .*{said}"):
            check_sources({"mine": source})
    for name in ("pretrained", "a b", "../x"):
        with pytest.raises(ValueError, match=r"own: .*cannot name an arm"):
            apply_overrides(FewShotConfig(), [f"own={{{name}: 'a:b'}}"])


def test_a_function_cannot_change_the_windows_and_constant_features_are_a_collapse(
    module: Path,
) -> None:
    module.write_text("def encode(imu, rate_hz):\n    imu[:] = 7\n    return imu.mean(2)\n")
    before = LABEL.imu.clone()
    results = run("written_here:encode")
    assert bool((LABEL.imu == before).all())
    assert results["runs"][0]["settings"]["2"]["mine"]["collapsed"]
    assert "collapsed: all windows have the same features" in format_table(results)
    assert "Collapsed: all windows have the same features" in render_report(results)


def test_a_changed_function_does_not_take_finished_work_of_the_old_one(
    module: Path, tmp_path: Path
) -> None:
    finished = tmp_path / "finished.jsonl"
    lines = []
    for body in ("imu.mean(2)", "imu.mean(2)", "imu.std(2)"):
        sys.modules.pop("written_here", None)
        module.write_text(f"def encode(imu, rate_hz):\n    return {body}\n# {len(lines)}\n")
        results = run("written_here:encode", FinishedWork(finished))
        lines.append(len(finished.read_text().splitlines()))
    assert np.diff(lines).tolist() == [0, 3]  # a setting and two draws
    assert results["few_shot"]["2"]["mine"]["mean"] > 0.6


def test_windows_at_another_rate_than_an_exported_encoders_are_refused(
    module: Path, tmp_path: Path
) -> None:
    from tests.few_shot_files import export

    folder = export(tmp_path / "encoder")
    assert own_features("mine", str(folder), WINDOWS, True).shape[0] == len(LABEL)
    with pytest.raises(ValueError, match=r"few_shot.own.mine: .* at 50 Hz, .* at 25 Hz; give one"):
        own_features("mine", str(folder), replace(WINDOWS, rate_hz=25.0), True)
