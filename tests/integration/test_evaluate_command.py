import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from primus_scale.config import FewShotConfig, TaskConfig
from primus_scale.encoders.calibration import Calibration, FeatureCalibration
from primus_scale.encoders.card import CalibrationCard, read_card
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.evaluate import command, evaluate, log_few_shot, pool_reports, write_summary
from primus_scale.evaluate.command import untrained_copy
from primus_scale.evaluate.results import assemble
from primus_scale.evaluate.task import load_task
from primus_scale.monitor.log import LOG_FOLDER
from tests.few_shot_files import NOTE, export, write_side
from tests.few_shot_task import CLASSES, RATE_HZ, SAMPLES, few_penalties, make_side  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_penalties")
CONFIG = FewShotConfig(k=(2,), draws=2, steps=2, lrs=(1e-3,))


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_side(folder / "label", range(4))
    write_side(folder / "test", range(10, 12))
    export(folder / "encoder")
    return folder


def test_splits_without_a_number_are_told_apart_by_who_is_tested(task, tmp_path):
    card, found = read_card(task / "encoder"), []
    for number, tested in enumerate((range(10, 12), range(12, 14), range(10, 12))):
        folder = tmp_path / str(number)
        write_side(folder / "label", range(4), split=None)
        write_side(folder / "test", tested, split=None)
        found.append(load_task([str(folder)], card, report=lambda _line: None).split)
    assert found[0] == found[2] != found[1]


def test_results_and_report_are_written(task, tmp_path, capsys):
    results = evaluate(task / "encoder", str(task), CONFIG, tmp_path)
    assert json.loads((tmp_path / "few_shot.json").read_text(encoding="utf-8")) == results
    assert list(results["few_shot"]["2"]) == list(CONFIG.arms)
    assert results["runs"][0]["split"] == 2
    assert results["runs"][0]["test_people"] == ["sines/person-10", "sines/person-11"]
    assert results["runs"][0]["label_windows"] == 4 * 8  # a ninth has no label
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count(NOTE) == 2  # of the pretraining data, and of the task
    assert "hand-crafted features" in capsys.readouterr().out
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["few_shot.json", "report.html", "report.md", "report_figures"]

    for use, more in ((write_summary, ()), (log_few_shot, ({},))):
        with pytest.raises(FileNotFoundError, match="has not finished"):
            use(tmp_path, results, *more)
    trained = {"losses": {}, "windows_per_s": 1.0, "retrieval": {}, "steps": 3}
    (tmp_path / "train.json").write_text(json.dumps(trained), encoding="utf-8")
    summary = json.loads(write_summary(tmp_path, results).read_text(encoding="utf-8"))
    assert summary["few_shot"]["2"]["scratch"].keys() == {"mean", "low", "high"}
    assert summary["windows_per_s"] == 1.0

    log_few_shot(tmp_path, results, {"optimizer": {"lr": 0.5}})
    board = EventAccumulator(str(tmp_path / LOG_FOLDER)).Reload()
    assert set(board.Tags()["images"]) == {f"confusion/{arm}" for arm in CONFIG.arms}
    assert board.Images("confusion/features")[0].step == 3
    (accuracy,) = board.Scalars("few_shot/accuracy/pretrained/k=2")
    assert accuracy.step == 3
    assert accuracy.value == pytest.approx(100 * results["few_shot"]["2"]["pretrained"]["mean"])
    logged = board.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    started = HParamsPluginData.FromString(logged).session_start_info
    assert started.hparams["optimizer/lr"].number_value == 0.5

    other = {**results, "runs": [{**results["runs"][0], "split": 3}]}
    other["records"] = [{**record, "split": 3} for record in results["records"]]
    tables = assemble(
        other["runs"], other["records"], classes=other["classes"], protocol=other["protocol"]
    )
    other |= {name: table for name, table in tables.items() if name in results}
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    paths = [tmp_path / "few_shot.json", tmp_path / "other.json"]
    pooled = json.loads(pool_reports(paths, tmp_path / "pooled").read_text(encoding="utf-8"))
    assert pooled["few_shot"]["2"]["features"]["draws"] == 4
    assert pooled["data"] == results["data"]
    assert (tmp_path / "pooled" / "report.html").is_file()


def test_results_of_another_evaluation_are_not_replaced(task, tmp_path):
    out, few = tmp_path / "out", CONFIG.model_copy(update={"draws": 1, "arms": ("features",)})
    evaluate(task / "encoder", str(task), few, out)
    written = (out / "few_shot.json").read_bytes()
    write_side(tmp_path / "other/label", range(4))
    write_side(tmp_path / "other/test", range(12, 14))
    export(tmp_path / "encoder", run="another")
    mapped = few.model_copy(update={"task": TaskConfig(labels={CLASSES[0]: "idle"})})
    others = (
        ("split", task / "encoder", tmp_path / "other", few),
        ("encoder", tmp_path / "encoder", task, few),
        ("list of classes and task", task / "encoder", task, mapped),
    )
    for what, encoder, data, config in others:
        with pytest.raises(FileExistsError, match=f"holds results of another {what}; name"):
            evaluate(encoder, str(data), config, out)
    assert (out / "few_shot.json").read_bytes() == written

    more = few.model_copy(update={"draws": 2})  # the same evaluation with another setting
    assert evaluate(task / "encoder", str(task), more, out)["protocol"]["draws"] == 2
    (out / "few_shot.json").write_text("{", encoding="utf-8")
    evaluate(task / "encoder", str(tmp_path / "other"), few, out)


def test_calibrated_features_are_evaluated_unless_turned_off(task, tmp_path):
    encoder, card = load_encoder(task / "encoder"), read_card(task / "encoder")
    width = encoder.backbone.width
    encoder.calibration = FeatureCalibration.of(
        Calibration(np.ones(width), 2 * np.eye(width)), "scaling"
    )
    card = card.model_copy(update={"calibration": CalibrationCard(kind="scaling", features=width)})
    save_encoder(encoder, tmp_path / "encoder", card)
    arms = ("pretrained", "pretrained_finetuned")
    few = CONFIG.model_copy(update={"draws": 1, "steps": 1, "arms": arms})
    given = evaluate(tmp_path / "encoder", str(task), few, tmp_path / "on")
    assert given["encoder"]["calibration"] == "scaling"
    assert "calibration of its features: scaling" in (tmp_path / "on/report.html").read_text()

    seen = []
    off = few.model_copy(update={"calibrated": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run_few_shot", lambda *args, **_: seen.append(args[2]) or given)
        assert evaluate(tmp_path / "encoder", str(task), off, tmp_path / "off") is given
    assert given["encoder"]["calibration"] == "none"
    assert seen[0].calibration is None
    assert untrained_copy(encoder, card, seed=1).calibration is None


def test_files_that_are_no_results_are_named(tmp_path):
    path = tmp_path / "few_shot.json"
    with pytest.raises(FileNotFoundError, match=r"few_shot\.json is missing"):
        pool_reports([path], tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"few_shot\.json: no JSON"):
        pool_reports([path], tmp_path)
    for schema in (1, 9):
        path.write_text(json.dumps({"schema": schema}), encoding="utf-8")
        said = f"schema is {schema}, this program reads 2; run primus-scale evaluate again"
        with pytest.raises(ValueError, match=said):
            pool_reports([path], tmp_path)


def test_evaluations_may_share_what_they_have_finished(task, tmp_path):
    arms = ("pretrained", "pretrained_finetuned", "features")
    few = CONFIG.model_copy(update={"draws": 1, "steps": 1, "arms": arms})
    shared = tmp_path / "finished.jsonl"
    first = evaluate(task / "encoder", str(task), few, tmp_path / "first", finished_file=shared)
    lines = shared.read_text().splitlines()
    again = evaluate(task / "encoder", str(task), few, tmp_path / "again", finished_file=shared)
    assert again == first
    assert shared.read_text().splitlines() == lines


def test_encoder_whose_features_overflow_is_refused(task, tmp_path):
    encoder = load_encoder(task / "encoder")
    with torch.no_grad():
        next(encoder.parameters()).fill_(3e38)  # finite, and overflows in the first layer
    save_encoder(encoder, tmp_path / "encoder", read_card(task / "encoder"))
    with pytest.raises(ValueError, match=r"arm pretrained\w*: features of .* are NaN"):
        evaluate(tmp_path / "encoder", str(task), CONFIG, tmp_path)


def test_encoder_of_another_window_is_refused_before_any_work(task, tmp_path):
    export(tmp_path / "encoder", samples=100)
    with pytest.raises(ValueError, match=r"label: window_samples is 50, but the encoder takes 100"):
        evaluate(tmp_path / "encoder", str(task), CONFIG, tmp_path)


def test_class_that_only_the_test_has_is_refused(task, tmp_path):
    write_side(tmp_path / "label", range(4))
    write_side(tmp_path / "test", range(10, 12), classes=("still", "slow", "jumping"))
    with pytest.raises(ValueError, match="windows of jumping, of which label/ has none"):
        evaluate(task / "encoder", str(tmp_path), CONFIG, tmp_path / "out")


def test_people_on_both_sides_are_refused(task, tmp_path):
    write_side(tmp_path / "label", range(4))
    write_side(tmp_path / "test", range(3, 5))
    with pytest.raises(ValueError, match="people sines/person-3 are in label/ and in test/"):
        evaluate(task / "encoder", str(tmp_path), CONFIG, tmp_path / "out")


def test_untrained_copy_has_new_weights_and_the_datas_statistics(task):
    pretrained, card = load_encoder(task / "encoder"), read_card(task / "encoder")
    first, again = (untrained_copy(pretrained, card, seed=1) for _ in range(2))
    other = untrained_copy(pretrained, card, seed=2)
    weights = [dict(encoder.named_parameters()) for encoder in (pretrained, first, again, other)]
    name = max(weights[0], key=lambda key: weights[0][key].numel())
    assert torch.equal(weights[1][name], weights[2][name])
    assert not torch.equal(weights[1][name], weights[3][name])
    assert not torch.equal(weights[1][name], weights[0][name])
    for name, buffer in pretrained.named_buffers():
        assert torch.equal(first.get_buffer(name), buffer)
