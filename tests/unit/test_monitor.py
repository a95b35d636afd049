import io
import json
import time
from pathlib import Path

import pytest
import torch

from primus_scale.encoders.base import Embeddings
from primus_scale.monitor.log import METRICS_FILE
from primus_scale.monitor.monitor import Monitor
from primus_scale.monitor.pictures import draw_similarity, draw_views
from primus_scale.monitor.progress import ProgressLine, format_seconds
from tests.full_disk import files_limited_to
from tests.monitored_run import BATCH, RATE_HZ, WIDTH, make_config, make_report, make_views


def read_lines(output: Path) -> list[dict[str, float]]:
    text = (output / METRICS_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def make_monitor(output: Path, *overrides: str, **settings) -> Monitor:
    return Monitor(output, make_config(output, *overrides).train, rate_hz=RATE_HZ, **settings)


def run(output: Path, start: int = 0, stop: int = 40, losses=lambda step: 100.0 - step, *overrides):
    stream = io.StringIO()
    config = make_config(output, *overrides)
    monitor = Monitor(output, config.train, rate_hz=RATE_HZ, start_step=start, stream=stream)
    for step in range(start + 1, stop + 1):
        monitor.step(step, make_report(losses(step), waited_s=0.25 * (step - start)))
    summary = monitor.summary()
    monitor.close()
    return summary, stream.getvalue()


def test_logged_steps_and_their_figures(tmp_path):
    run(tmp_path)
    lines = read_lines(tmp_path)
    assert [line["step"] for line in lines] == [1, 10, 20, 30, 40]
    last = lines[-1]
    assert last["loss/imu_video"] == 60.0
    assert last["loss/total"] == 120.0
    assert last["temperature/ss"] == pytest.approx(0.2)
    assert last["optimizer/lr"] == 1e-3
    assert last["optimizer/grad_norm"] == 1.5
    assert last["support/fill"] == 123
    assert last["speed/waited_s"] == pytest.approx(2.5)  # since step 30
    assert last["speed/windows_per_s"] > 0
    assert {name for name in last if name.startswith("collapse/")} == {
        "collapse/alignment",
        "collapse/uniformity",
        "collapse/effective_rank",
    }


def test_speed_counts_the_windows_of_the_time(tmp_path):
    report = make_report(1.0)
    monitor = make_monitor(tmp_path, stream=io.StringIO())
    time.sleep(0.2)
    monitor.step(1, report)
    monitor.close()
    assert 0 < read_lines(tmp_path)[0]["speed/windows_per_s"] <= BATCH / 0.2


def test_neighbour_figures_equal_a_loop(tmp_path):
    run(tmp_path, stop=1)
    report = make_report(1.0)
    found, batch = report.neighbours, report.batch
    scores, ages, same, overlapping, of_session = [], [], [], [], []
    for row in range(len(batch)):
        for place in range(found.valid.shape[1]):
            if found.valid[row, place]:
                scores.append(float(found.score[row, place]))
                ages.append(int(found.age[row, place]))
                same.append(bool(found.recording[row, place] == batch.recording[row]))
                of_session.append(bool(found.session[row, place] == batch.session[row]))
                apart_s = abs(float(found.start_s[row, place] - batch.start_s[row]))
                is_own = bool(found.uid[row, place] == batch.uid[row])
                overlapping.append(is_own or (same[-1] and apart_s < 5))
    line = read_lines(tmp_path)[0]
    assert 0 < sum(same) < len(same)
    assert line["neighbours/score"] == pytest.approx(sum(scores) / len(scores))
    assert line["neighbours/age"] == pytest.approx(sum(ages) / len(ages))
    assert line["neighbours/same_recording"] == pytest.approx(sum(same) / len(same))
    assert 0 < sum(of_session) < len(same) and of_session != same
    assert line["neighbours/same_session"] == pytest.approx(sum(of_session) / len(same))
    assert overlapping != same and any(overlapping)
    assert line["neighbours/same_moment"] == pytest.approx(sum(overlapping) / len(same))


def test_summary_takes_both_ends_of_the_run(tmp_path):
    summary, _ = run(tmp_path, 0, 40, lambda step: 100.0 - step, "train.log_every=1")
    assert summary["losses"]["imu_video"] == {"first": 97.5, "last": 61.5}  # 4 of 40 steps
    assert summary["losses"]["total"]["last"] == 123.0
    assert summary["steps"] == 40
    assert summary["windows_per_s"] > 0
    assert json.loads(json.dumps(summary)) == summary


def test_summary_starts_a_term_where_it_has_pairs(tmp_path):
    monitor = make_monitor(tmp_path, "train.log_every=1")
    for step in range(1, 41):
        rows = 5 if step > 20 else 0  # the support set is filled first
        monitor.step(step, make_report(100.0 - step, neighbour_rows=rows))
    summary = monitor.summary()
    monitor.close()
    assert summary["losses"]["imu_imu"] == {"first": 97.5, "last": 61.5}
    assert summary["losses"]["neighbour_imu"] == {"first": 78.5, "last": 60.5}  # 2 of 20 steps
    assert summary["losses"]["total"] == {"first": 157.0, "last": 121.0}
    named = [line["step"] for line in read_lines(tmp_path) if "loss/neighbour_imu" in line]
    assert named == list(range(21, 41))


def test_full_disk_names_the_metrics_file_and_loses_no_line(tmp_path):
    run(tmp_path, stop=20)
    before = (tmp_path / METRICS_FILE).read_text(encoding="utf-8")
    expected = pytest.raises(OSError, match=f"cannot write {tmp_path / METRICS_FILE} .*free some")
    with files_limited_to(len(before) // 2), expected:
        make_monitor(tmp_path, start_step=20)
    assert (tmp_path / METRICS_FILE).read_text(encoding="utf-8") == before

    monitor = make_monitor(tmp_path, start_step=20)
    with files_limited_to(len(before)), expected:
        monitor.step(40, make_report(1.0))
    monitor.close()


def test_resumed_run_joins_and_drops_what_was_logged_beyond(tmp_path):
    run(tmp_path, stop=30)
    summary, _ = run(tmp_path, start=20, losses=lambda step: 1000.0)
    lines = read_lines(tmp_path)
    assert [line["step"] for line in lines] == [1, 10, 20, 30, 40]
    assert [line["loss/imu_imu"] for line in lines] == [99.0, 90.0, 80.0, 1000.0, 1000.0]
    assert summary["losses"]["imu_imu"] == {"first": 99.0, "last": 1000.0}


def test_line_cut_by_a_kill_is_dropped(tmp_path):
    run(tmp_path, stop=20)
    with (tmp_path / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 30, "loss/to')
    run(tmp_path, start=20)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 10, 20, 30, 40]


def test_figures_of_every_kind_are_taken_over(tmp_path):
    run(tmp_path, stop=20)
    path = tmp_path / METRICS_FILE
    line = '{"step": 1, "support/learning": false, "support/fill": 8, "loss/total": 8.5}\n'
    path.write_text(line + path.read_text())
    run(tmp_path, start=20)
    assert path.read_text().startswith(line)


@pytest.mark.parametrize(
    "damage",
    [
        b"[" * 100_000,
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"5",
        b'{"loss/total": 5.0}',
        b'{"step": 10, "loss/total": "5"}',
        b'{"step": "10"}',
        b'{"step": 1' + b"0" * 10_000 + b"}",
        b"",
    ],
)
def test_a_damaged_line_is_dropped_and_told(tmp_path, capsys, damage):
    """The run goes on; what the other lines say is kept."""
    run(tmp_path, stop=20)
    path = tmp_path / METRICS_FILE
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + b"".join(others))
    capsys.readouterr()
    run(tmp_path, start=20)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 10, 20, 30, 40]
    assert f"{path}: 1 of 4 lines are damaged and are dropped" in capsys.readouterr().err


def test_loss_that_is_not_finite_keeps_the_metrics_valid_json(tmp_path):
    summary, _ = run(tmp_path, losses=lambda step: float("nan") if step == 40 else 1.0)
    assert "NaN" not in (tmp_path / METRICS_FILE).read_text(encoding="utf-8")
    assert "loss/total" not in read_lines(tmp_path)[-1]
    assert summary["losses"]["imu_imu"]["last"] == 1.0
    assert summary["steps"] == 40


def test_validation_finds_matching_pairs_and_nothing_by_chance(tmp_path):
    monitor = make_monitor(tmp_path, stream=io.StringIO())
    generator = torch.Generator().manual_seed(0)
    imu = torch.randn(50, 6, WIDTH, generator=generator)
    chance = torch.randn(50, WIDTH, generator=generator)

    def encode(part: torch.Tensor) -> Embeddings:
        assert len(part) <= 8
        vectors = part[:, 0]
        return Embeddings(vectors, vectors, {"video": vectors, "text": vectors})

    present = {"video": torch.arange(50) % 5 > 0, "text": torch.ones(50, dtype=torch.bool)}
    recalls = monitor.validate(7, encode, imu, {"video": imu[:, 0], "text": chance}, present)
    assert recalls["imu_to_video"] == recalls["video_to_imu"] == 1.0
    assert recalls["imu_to_text"] < 0.2
    assert monitor.summary()["retrieval"] == recalls
    chance = {"imu_to_video": 1 / 40, "imu_to_text": 1 / 50}
    assert monitor.summary()["retrieval_chance"] == pytest.approx(
        chance | {"video_to_imu": 1 / 40, "text_to_imu": 1 / 50}
    )
    monitor.close()
    assert read_lines(tmp_path)[-1]["retrieval/imu_to_video"] == 1.0


def test_failed_step_is_logged_without_collapse_measures(tmp_path):
    report = make_report(float("nan"), skipped_steps=1)
    report.views[0].ss[0] = float("nan")
    monitor = make_monitor(tmp_path, stream=io.StringIO())
    monitor.step(1, report)
    monitor.close()
    line = read_lines(tmp_path)[0]
    assert line["optimizer/skipped_steps"] == 1
    assert not any(name.startswith("collapse/") for name in line)


def test_windows_of_one_narration_answer_for_each_other(tmp_path):
    stream = io.StringIO()
    monitor = make_monitor(tmp_path, stream=stream)
    texts = torch.eye(4)[torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])]

    def encode(imu: torch.Tensor) -> Embeddings:
        return Embeddings(imu[:, 0], imu[:, 0], {"text": imu[:, 0]})

    imu = texts[:, None] + 0.1 * torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0))
    present = {"text": torch.ones(8, dtype=torch.bool)}
    recalls = monitor.validate(1, encode, imu, {"text": texts}, present)
    monitor.close()
    assert recalls == {"imu_to_text": 1.0, "text_to_imu": 1.0}
    line = read_lines(tmp_path)[-1]
    assert line["retrieval_chance/imu_to_text"] == line["retrieval_chance/text_to_imu"] == 0.25
    assert stream.getvalue().splitlines() == [
        "step 1 | recall@1 among 8 held-out windows: imu to text 100.00 %, chance 25.00 %; "
        "text to imu 100.00 %, chance 25.00 %"
    ]


def test_progress_line_in_a_log_and_on_a_terminal(tmp_path):
    _, text = run(tmp_path, stop=20)
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("step 20/40 | total 160.000 imu_video 80.000 imu_imu 80.000 | ")
    assert "windows/s" in lines[-1]
    assert lines[-1].endswith("s left")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    line = ProgressLine(3, terminal)
    line.show(1, {"loss/total": 2.0})
    line.show(2, {"loss/total": 1.0})
    line.end()
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().count("\r") == 2


def test_seconds_are_told_in_words():
    assert [format_seconds(s) for s in (12.2, 200, 3720)] == ["12s", "3m 20s", "1h 02m"]


def test_pictures_are_colour_images_of_what_they_are_given():
    view0, view1 = make_views()
    picture = draw_views(view0, view1, RATE_HZ)
    assert picture.dtype.name == "uint8"
    assert picture.shape[2] == 3
    assert (picture != draw_views(view0, view0, RATE_HZ)).any()
    rows = torch.eye(4)
    assert (draw_similarity(rows, rows, "a") != draw_similarity(rows, rows.flip(0), "a")).any()
