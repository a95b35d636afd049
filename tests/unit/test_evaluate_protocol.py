import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from primus_scale.augment import build_augment
from primus_scale.config import FewShotConfig, Jitter, Scaling
from primus_scale.evaluate import format_table, pool, run_few_shot
from primus_scale.evaluate.report import render_report
from primus_scale.evaluate.results import ARMS
from tests.few_shot_task import SmallEncoder, make_side

LABEL = make_side(range(5))
TEST = make_side(range(10, 13))
CONFIG = FewShotConfig(k=(1, 4, "all"), draws=3, steps=8, batch=16, lrs=(1e-3, 1e-2))
AUGMENT = build_augment((Scaling(), Jitter()))


def run(**changes):
    keywords = {"label": LABEL, "test": TEST, "config": CONFIG, "split": 0, **changes}
    pretrained = keywords.pop("pretrained", None) or SmallEncoder(7)
    lines: list[str] = []
    return run_few_shot(
        pretrained=pretrained, fresh=SmallEncoder, augment=AUGMENT, report=lines.append, **keywords
    )


@pytest.fixture(scope="module")
def results():
    return run()


def test_every_arm_has_accuracy_f1_and_confusion_at_every_k(results):
    assert list(results["few_shot"]) == ["1", "4", "all"]
    for k, row in results["few_shot"].items():
        assert list(row) == list(ARMS)
        for arm, interval in row.items():
            draws = [r for r in results["records"] if (r["k"], r["arm"]) == (k, arm)]
            accuracies = [np.trace(r["confusion"]) / len(TEST) for r in draws]
            assert len(draws) == 3
            assert interval["mean"] == pytest.approx(np.mean(accuracies))
            assert interval["low"] <= interval["mean"] <= interval["high"]
            assert np.sum(results["confusion"][k][arm]) == 3 * len(TEST)
    assert json.loads(json.dumps(results)) == results


def test_paired_difference_is_taken_draw_by_draw(results):
    def accuracies(arm):
        return np.array(
            [r["accuracy"] for r in results["records"] if (r["k"], r["arm"]) == ("4", arm)]
        )

    difference = accuracies("pretrained") - accuracies("features")
    paired = results["paired"]["4"]["pretrained"]["features"]
    assert paired["mean"] == pytest.approx(difference.mean())
    half = 4.303 * difference.std(ddof=1) / 3**0.5  # t of 2 degrees of freedom
    assert paired["high"] - paired["mean"] == pytest.approx(half, rel=1e-3, abs=1e-9)


def test_easy_task_is_solved_by_features(results):
    assert results["few_shot"]["4"]["features"]["mean"] > 0.9


def test_run_repeats_exactly_and_leaves_the_pretrained_encoder_alone(results):
    encoder = SmallEncoder(7)
    before = encoder.convolution.weight.clone()
    assert run(pretrained=encoder) == results
    assert torch.equal(encoder.convolution.weight, before)


def test_test_people_decide_nothing(results):
    wrong = replace(TEST, label=np.roll(TEST.label, 8))
    assert run(test=wrong)["runs"][0]["settings"] == results["runs"][0]["settings"]


def test_people_on_both_sides_are_refused():
    with pytest.raises(ValueError, match="person-4"):
        run(test=make_side(range(4, 6)))


def test_fine_tuning_can_be_left_out():
    config = CONFIG.model_copy(update={"finetune": False, "k": (1,)})
    assert "pretrained_finetuned" not in run(config=config)["few_shot"]["1"]


def test_pool_takes_seeds_together_and_splits_apart(results):
    second_seed = run(pretrained=SmallEncoder(8), pretraining_seed=1)
    second_split = run(split=1, test=make_side(range(20, 22)))
    pooled = pool([results, second_seed, second_split])

    def accuracies(part, arm):
        return np.array(
            [r["accuracy"] for r in part["records"] if (r["k"], r["arm"]) == ("1", arm)]
        )

    def values(arm):
        first = (accuracies(results, arm) + accuracies(second_seed, arm)) / 2
        return np.concatenate([first, accuracies(second_split, arm)])

    assert pooled["few_shot"]["1"]["pretrained"]["mean"] == pytest.approx(
        values("pretrained").mean()
    )
    assert pooled["few_shot"]["1"]["pretrained"]["n"] == 6
    gain = values("pretrained") - values("scratch")
    paired = pooled["paired"]["1"]["pretrained"]["scratch"]
    assert paired["mean"] == pytest.approx(gain.mean())
    half = 2.571 * gain.std(ddof=1) / 6**0.5  # t of 5 degrees of freedom
    assert paired["mean"] - paired["low"] == pytest.approx(half, rel=1e-3)
    assert accuracies(second_seed, "features").tolist() == accuracies(results, "features").tolist()
    assert accuracies(second_seed, "random").tolist() != accuracies(results, "random").tolist()
    assert len(pooled["runs"]) == 3


def test_interval_over_splits_takes_each_split_once(results):
    """Three splits, the third evaluated with two seeds: three values, whatever their draws."""
    others = [
        with_random_accuracy(results, split, seed) for split, seed in ((2, 0), (3, 0), (3, 1))
    ]
    pooled = pool([results, *others])

    def mean_gain(split):
        of_split = [r for r in pooled["records"] if r["split"] == split and r["k"] == "1"]
        arms = [
            np.mean([r["accuracy"] for r in of_split if r["arm"] == arm])
            for arm in ("pretrained", "scratch")
        ]
        return arms[0] - arms[1]

    gains = np.array([mean_gain(split) for split in (0, 2, 3)])
    over_splits = pooled["paired_by_split"]["1"]["pretrained"]["scratch"]
    assert list(over_splits["splits"]) == ["0", "2", "3"]
    assert list(over_splits["splits"].values()) == pytest.approx(gains.tolist())
    assert over_splits["n"] == 3
    assert over_splits["mean"] == pytest.approx(gains.mean())
    half = 4.303 * gains.std(ddof=1) / 3**0.5  # t of 2 degrees of freedom
    assert over_splits["high"] - over_splits["mean"] == pytest.approx(half, rel=1e-3, abs=1e-9)

    page = render_report(pooled)
    assert page.count("from scratch, by split") == 2  # a table for each pretrained arm
    assert ", ".join(f"{100 * gain:+.1f}" for gain in gains) in page
    assert ", by split" not in render_report(results)  # a single split has no interval


def with_random_accuracy(results, split, pretraining_seed):
    """The results as if of another run, with other accuracies."""
    rng = np.random.default_rng([split, pretraining_seed])
    name = {"split": split, "pretraining_seed": pretraining_seed}
    return {
        **results,
        "runs": [{**results["runs"][0], **name}],
        "records": [{**r, **name, "accuracy": rng.random()} for r in results["records"]],
    }


def test_pool_refuses_what_does_not_belong_together(results):
    with pytest.raises(ValueError, match="occurs twice"):
        pool([results, results])
    with pytest.raises(ValueError, match="differ in their protocol"):
        pool([results, {**results, "protocol": {}}])
    with pytest.raises(ValueError, match="no results"):
        pool([])


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
    assert page.count("<img ") == 3 + len(ARMS)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page == render_report(described)


def test_table_has_a_line_an_arm(results):
    lines = format_table(results).splitlines()
    assert len(lines) == 1 + len(ARMS)
    assert lines[-1].startswith("hand-crafted features")
