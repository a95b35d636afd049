import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from primus_scale.augment import build_augment
from primus_scale.config import FewShotConfig
from primus_scale.config.augment import (
    Jitter,
    Scaling,
)
from primus_scale.evaluate import format_table, pool, run_few_shot
from primus_scale.evaluate.arm_table import ARMS
from primus_scale.evaluate.finished_work import FinishedWork
from primus_scale.evaluate.report import render_report
from primus_scale.evaluate.results import assemble
from tests.few_shot_task import SmallEncoder, few_penalties, make_side  # noqa: F401

LABEL = make_side(range(5))
TEST = make_side(range(10, 13))
pytestmark = pytest.mark.usefixtures("few_penalties")
CONFIG = FewShotConfig(
    k=(1, 4, "all"), draws=3, trained_draws=2, steps=8, batch=16, lrs=(1e-3, 1e-2)
)
TRAINED = ("pretrained_finetuned", "scratch")
AUGMENT = build_augment((Scaling(), Jitter()))


def run(**changes):
    keywords = {"label": LABEL, "test": TEST, "config": CONFIG, "split": 0, **changes}
    pretrained = keywords.pop("pretrained", None) or SmallEncoder(7)
    lines: list[str] = []
    found = run_few_shot(
        pretrained=pretrained, fresh=SmallEncoder, augment=AUGMENT, report=lines.append, **keywords
    )
    seconds = found["runs"][0].pop("cost")["fitting_s"]  # no two runs have the same
    assert {k: list(row) for k, row in seconds.items()} == {
        k: list(row) for k, row in found["few_shot"].items()
    }
    return found


@pytest.fixture(scope="module")
def results():
    return run()


def drawn(results, k, arm):
    return [r for r in results["records"] if (r["k"], r["arm"]) == (k, arm)]


def answers(results, k, arm, draws=None):
    """Correct answers and windows of each person, means over fits; one split."""
    records = [r for r in drawn(results, k, arm) if draws is None or r["draw"] in draws]
    people = sorted(records[0]["people"])
    correct = [[r["people"][name]["correct"] for name in people] for r in records]
    total = [records[0]["people"][name]["total"] for name in people]
    return np.mean(correct, axis=0), np.array(total)


def test_every_arm_has_accuracy_f1_and_confusion_at_every_k(results):
    assert list(results["few_shot"]) == ["1", "4", "all"]
    for k, row in results["few_shot"].items():
        assert list(row) == list(CONFIG.arms)
        for arm, interval in row.items():
            records = drawn(results, k, arm)
            assert len(records) == interval["draws"] == (2 if arm in TRAINED else 3)
            accuracies = [r["accuracy"] for r in records]
            assert interval["mean"] == pytest.approx(np.mean(accuracies))
            assert interval["draw_sd"] == pytest.approx(np.std(accuracies, ddof=1))
            assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
            assert interval["people"] == 3
            assert np.sum(results["confusion"][k][arm]) == len(records) * len(TEST)
    assert json.loads(json.dumps(results)) == results


def test_answers_are_kept_for_each_test_person(results):
    for record in results["records"]:
        assert list(record["people"]) == ["person-10", "person-11", "person-12"]
        hits = 0
        for counts in record["people"].values():
            assert counts["total"] == np.sum(counts["confusion"]) == 24
            assert counts["correct"] == np.trace(counts["confusion"])
            hits += counts["correct"]
        assert record["accuracy"] == hits / len(TEST)


def students(correct, total, bounds=(0.0, 1.0)):
    """Student's interval of three people, from their residuals to the accuracy of all."""
    mean = correct.sum() / total.sum()
    left = [(correct.sum() - c) / (total.sum() - t) for c, t in zip(correct, total, strict=True)]
    reach = 4.3027 * np.sqrt(2 / 3 * np.sum((np.array(left) - np.mean(left)) ** 2))
    return max(mean - reach, bounds[0]), min(mean + reach, bounds[1])


def test_interval_is_that_of_people_and_not_of_windows_or_draws(results):
    correct, total = answers(results, "1", "random")
    interval = results["few_shot"]["1"]["random"]
    assert interval["mean"] == pytest.approx(correct.sum() / total.sum())
    assert (interval["low"], interval["high"]) == pytest.approx(students(correct, total), abs=1e-4)


def test_paired_difference_is_taken_on_the_draws_that_both_have(results):
    for baseline, draws in (("features", (0, 1, 2)), ("scratch", (0, 1))):
        ours, total = answers(results, "4", "pretrained", draws)
        theirs, _ = answers(results, "4", baseline, draws)
        paired = results["paired"]["4"]["pretrained"][baseline]
        assert paired["draws"] == len(draws)
        assert paired["mean"] == pytest.approx((ours - theirs).sum() / total.sum())
        ends = students(ours - theirs, total, (-1.0, 1.0))
        assert (paired["low"], paired["high"]) == pytest.approx(ends, abs=1e-4)
        assert list(paired["splits"].values()) == pytest.approx([paired["mean"]])


def test_easy_task_is_solved_by_features(results):
    assert results["few_shot"]["4"]["features"]["mean"] > 0.9


def test_run_repeats_exactly_in_several_processes_and_leaves_the_encoder_alone(results):
    encoder = SmallEncoder(7)
    before = encoder.convolution.weight.clone()
    assert run(pretrained=encoder, jobs=3) == results
    assert torch.equal(encoder.convolution.weight, before)


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(results, tmp_path):
    path = tmp_path / "finished.jsonl"

    def stop(line):
        if line.startswith("k=1    scratch") and "accuracy" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_few_shot(
            LABEL, TEST, SmallEncoder(7), SmallEncoder, AUGMENT, CONFIG,
            report=stop, finished=FinishedWork(path),
        )  # fmt: skip
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(entries) == (1 + 3) + 2 * (1 + 2)  # settings and draws of the three arms so far
    assert run(finished=FinishedWork(path)) == results

    # what is finished is taken from the file
    entries[1]["value"]["accuracy"] = 0.125
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    assert drawn(run(finished=FinishedWork(path)), "1", "pretrained")[0]["accuracy"] == 0.125


def test_finished_work_of_other_settings_data_or_weights_is_not_taken(tmp_path):
    path = tmp_path / "finished.jsonl"
    config = FewShotConfig(k=(1,), draws=1, steps=2, lrs=(1e-3,), batch=8)
    changes = [
        {},
        {"config": config.model_copy(update={"steps": 1})},
        {"test": make_side(range(14, 16))},
        {"label": make_side(range(4))},
        {"pretrained": SmallEncoder(8)},
        {"pretraining_seed": 1},
    ]
    lines = []
    for change in changes:
        keywords = {"config": config, **change}
        alone = run(**keywords)
        assert run(**keywords, finished=FinishedWork(path)) == alone
        lines.append(len(path.read_text().splitlines()))
    added = np.diff([0, *lines]).tolist()
    # Arms that use the encoder anew; with another seed what does not depend on it is kept.
    assert added == [10, 10, 10, 10, 4, 2 + 1 + 1]


def test_test_people_decide_nothing(results):
    wrong = replace(TEST, label=np.roll(TEST.label, 8))
    one_k = CONFIG.model_copy(update={"k": (4,)})
    settings = run(test=wrong, config=one_k)["runs"][0]["settings"]
    assert settings == {"4": results["runs"][0]["settings"]["4"]}


def test_people_on_both_sides_are_refused():
    with pytest.raises(ValueError, match="person-4"):
        run(test=make_side(range(4, 6)))


def test_fine_tuning_can_be_left_out():
    config = CONFIG.model_copy(update={"arms": ("pretrained", "features"), "k": (1,)})
    assert "pretrained_finetuned" not in run(config=config)["few_shot"]["1"]


def made_up(split, seed, people, correct):
    """Results of one run in which ``correct`` answers of 20 windows each are given.

    correct: by arm, (draws, people). Windows have one class of two.
    """
    records = []
    for arm, table in correct.items():
        for draw, row in enumerate(table):
            answers = {
                name: {"correct": hits, "total": 20, "confusion": [[hits, 20 - hits], [0, 0]]}
                for name, hits in zip(people, row, strict=True)
            }
            accuracy = sum(row) / (20 * len(row))
            scores = {"accuracy": accuracy, "macro_f1": accuracy}
            fit = {"split": split, "pretraining_seed": seed, "draw": draw}
            records.append({**fit, "k": "1", "arm": arm, **scores, "people": answers})
    runs = [{"split": split, "pretraining_seed": seed}]
    return assemble(runs, records, classes=["a", "b"], protocol={})


def test_pool_averages_seeds_adds_up_splits_and_counts_a_person_once():
    first = made_up(1, 0, ["p", "q"], {"pretrained": [[10, 20], [12, 18]], "scratch": [[8, 8]]})
    again = made_up(1, 1, ["p", "q"], {"pretrained": [[14, 20], [16, 16]], "scratch": [[6, 10]]})
    other = made_up(2, 0, ["q", "r"], {"pretrained": [[19, 1], [17, 3]], "scratch": [[9, 3]]})
    pooled = pool([first, again, other])

    # means over draws and seeds: p 13, q 18.5 in split 1; q 18, r 2 in split 2
    row = pooled["few_shot"]["1"]["pretrained"]
    correct, total = np.array([13, 18.5 + 18, 2]), np.array([20, 40, 20])
    assert row["mean"] == pytest.approx(correct.sum() / total.sum())
    assert (row["people"], row["draws"]) == (3, 4)
    assert (row["low"], row["high"]) == pytest.approx(students(correct, total), abs=1e-4)

    # on draw 0, which scratch has: p 12 - 7, q 20 - 9 and 19 - 9, r 1 - 3
    gain = pooled["paired"]["1"]["pretrained"]["scratch"]
    assert gain["mean"] == pytest.approx((5 + 11 + 10 - 2) / 80)
    assert gain["splits"] == pytest.approx({"1": (5 + 11) / 40, "2": (10 - 2) / 40})
    assert gain["draws"] == 2

    page = render_report({**pooled, **described(pooled)})
    assert f"by split: {40:+.1f}, {20:+.1f}" in page


def described(results):
    """What a report needs of a run beyond made-up records."""
    computation = {"precision": "fp32", "device": "cpu", "capability": "x", "torch": "2"}
    more = {
        "label_people": ["s"],
        "test_people": ["p"],
        "label_windows": 1,
        "test_windows": 1,
        "settings": {"1": {"pretrained": {"strength": 0.1, "scaling": "none"}}},
        "computation": computation,
    }
    return {
        "runs": [{**run, **more} for run in results["runs"]],
        "protocol": CONFIG.model_dump(mode="json", exclude={"task"}),
    }


def test_another_pretraining_seed_has_the_same_labels_and_other_fresh_weights(results):
    again = run(pretrained=SmallEncoder(8), pretraining_seed=1)

    def accuracies(part, arm):
        return [r["accuracy"] for r in drawn(part, "1", arm)]

    assert accuracies(again, "features") == accuracies(results, "features")
    assert accuracies(again, "random") != accuracies(results, "random")
    assert len(pool([results, again])["runs"]) == 2


def test_the_number_of_steps_is_the_limit_only_where_that_is_said(results):
    settings = results["runs"][0]["settings"]["4"]
    for arm in TRAINED:
        assert settings[arm]["at_limit"] == (settings[arm]["steps"] == CONFIG.steps)
        assert (f"{ARMS[arm].title} at k = 4" in format_table(results)) == settings[arm]["at_limit"]


def test_pool_refuses_what_does_not_belong_together(results):
    with pytest.raises(ValueError, match="occurs twice"):
        pool([results, results])
    with pytest.raises(ValueError, match="differ in their protocol"):
        pool([results, {**results, "protocol": {}}])
    with pytest.raises(ValueError, match="no results"):
        pool([])


def test_a_mixed_model_stands_beside_the_differences_where_it_is_asked_for(results):
    assert "mixed" not in results
    again = pool([{**results, "protocol": {**results["protocol"], "mixed_model": True}}])
    assert again["paired"] == results["paired"]
    ours, total = answers(results, "4", "pretrained")
    theirs, _ = answers(results, "4", "features")
    mixed = again["mixed"]["4"]["pretrained"]["features"]
    assert mixed["mean"] == pytest.approx(np.mean((ours - theirs) / total), abs=1e-3)
    assert mixed["low"] < mixed["mean"] < mixed["high"]
    assert "the same by a mixed model" in format_table(again)
    page = render_report(again)
    assert f"{100 * mixed['mean']:+.1f} <small>" in page.split("by a mixed model")[1]


def test_report_stands_alone_and_shows_the_figures(results):
    described = {
        **results,
        "data": {"rate_hz": 50.0, "window_s": 1.0, "datasets": {"sines": "SYNTHETIC <sines>"}},
        "encoder": {"name": "small", "parameters": 880, "pretraining": "none", "datasets": {}},
    }
    page = render_report(described)
    cell = results["few_shot"]["4"]["features"]
    assert f"{100 * cell['mean']:.1f} <small>[{100 * cell['low']:.1f}," in page
    assert "SYNTHETIC &lt;sines&gt;" in page
    assert page.count("<img ") == 4 + len(CONFIG.arms)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<b>From scratch</b>" in page
    assert "<b>MiniRocket</b>" not in page  # only what was compared is explained
    assert "by a mixed model" not in page
    assert page == render_report(described)


def test_table_has_a_line_an_arm_and_a_pair_with_their_draws(results):
    text = format_table(results)
    lines = {line[:57].strip(): line[57:].split() for line in text.splitlines()}
    assert lines[ARMS["features"].title][0] == "3"
    assert lines[ARMS["scratch"].title][0] == "2"
    assert lines[f"{ARMS['pretrained'].title} - {ARMS['scratch'].title}"][0] == "2"
    assert "3 people" in text
    assert "still, slow, fast" in text
    gain = results["paired"]["4"]["pretrained"]["features"]
    assert "the frozen encoder against hand-crafted features, on 3 people never seen: " in text
    assert f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}," in text.splitlines()[-1]
    assert "points at k = 4" in text.splitlines()[-1]
