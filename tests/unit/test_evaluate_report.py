"""Results outlive a report that cannot be drawn."""

import json
from pathlib import Path

import pytest

from primus_scale.evaluate.command import write_results


def test_results_are_kept_and_one_line_tells_of_a_report_that_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text("a report of other results")
    results = {"few_shot": {}, "runs": []}  # nothing to draw
    write_results(results, tmp_path)
    assert json.loads((tmp_path / "few_shot.json").read_text(encoding="utf-8")) == results
    assert not (tmp_path / "report.html").exists()
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert told.startswith(f"{tmp_path / 'report.html'} could not be drawn (")
    assert told.endswith(f"the results are in {tmp_path / 'few_shot.json'}")
