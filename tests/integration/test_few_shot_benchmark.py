"""The few-shot benchmark over runs that are finished: nothing is done again, and all are pooled."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.draw_results import draw_results
from benchmarks.few_shot import main
from primus_scale.augment import build_augment
from primus_scale.config import FewShotConfig, TaskConfig
from primus_scale.config.augment import Jitter
from primus_scale.config_file import load_config
from primus_scale.evaluate import run_few_shot, write_results
from primus_scale.evaluate.results import assemble, best_baselines, format_interval
from primus_scale.study.study_file import read_study, write_variant
from tests.few_shot_task import SmallEncoder, few_penalties, make_side  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_penalties")
ARMS = ("pretrained", "scratch", "random", "features")
CONFIG = "configs/few_shot_hapt.yaml"
FINISHED = (
    "few_shot/label", "few_shot/test", "windows/train", "windows/validation",
    "packed/train", "packed/validation",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(few_penalties: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Data, and results of two splits; the second tests one person of the first again."""
    folder = tmp_path_factory.mktemp("finished")
    for split, test in ((1, range(10, 13)), (2, range(12, 14))):
        for name in FINISHED:
            data = folder / f"split{split}" / "data" / name
            data.mkdir(parents=True)
            (data / "index.json").touch()
        results = run_few_shot(
            make_side(range(4)),
            make_side(test),
            SmallEncoder(7),
            SmallEncoder,
            build_augment((Jitter(),)),
            FewShotConfig(
                k=(1,),
                draws=2,
                trained_draws=1,
                steps=1,
                arms=ARMS,
                task=TaskConfig(data=(f"split{split}/data/few_shot",)),  # splits pool all the same
            ),
            split=split,
        )
        write_results(results, folder / f"split{split}" / "default" / "seed0" / "few_shot")
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of what is finished."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_finished_runs_are_pooled_and_not_done_again(out: Path, capsys) -> None:
    arguments = ["--config", CONFIG, "--out", str(out), "--splits", "1", "2", "--seeds", "0"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "running" not in printed
    pooled = json.loads((out / "default" / "few_shot.json").read_text(encoding="utf-8"))
    assert pooled["few_shot"]["1"]["features"]["people"] == 4
    assert pooled["few_shot"]["1"]["features"]["draws"] == 4
    assert pooled["paired"]["1"]["pretrained"]["scratch"]["draws"] == 2
    assert (out / "default" / "report.html").is_file()
    table = (out / "study.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == "| accuracy, % | k = 1 |"
    frozen, features = (pooled["few_shot"]["1"][arm] for arm in ("pretrained", "features"))
    assert f"| default | {format_interval(frozen)} |" in table
    assert f"| hand-crafted features | {format_interval(features)} |" in table
    best = best_baselines(pooled)["1"]
    gain = pooled["paired"]["1"]["pretrained"][best]
    assert table[-1] == f"| default | {format_interval(gain, '+')} |"

    damaged = out / "split2" / "default" / "seed0" / "few_shot" / "few_shot.json"
    damaged.write_text('{"schema": 1}', encoding="utf-8")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{damaged}: schema is 1" in error
    assert "run primus-scale evaluate again" in error


@pytest.mark.parametrize(
    "name", ["study_terms", "study_ablation", "study_objectives", "study_objectives_second"]
)
def test_documented_tables_are_those_of_the_committed_studies(name: str) -> None:
    root = Path(__file__).parents[2]
    study = json.loads(gzip.decompress((root / f"docs/figures/{name}.json.gz").read_bytes()))
    lines = (root / "docs/results.md").read_text(encoding="utf-8").splitlines()
    for variant, summary in study.items():
        row = [format_interval(by_arm["pretrained"]) for by_arm in summary["few_shot"].values()]
        assert f"| {' | '.join([variant, *row])} |" in lines
        if "difference" in summary:
            gains = [format_interval(summary["difference"][k], "+") for k in summary["few_shot"]]
            assert f"| {' | '.join([variant, *gains])} |" in lines


@pytest.mark.parametrize(
    ("results_file", "pages"),
    [
        ("few_shot_hapt.json", ("docs/benchmarks.md",)),
        ("few_shot_second.json.gz", ("docs/results.md",)),
        ("few_shot_third.json.gz", ("docs/results.md",)),
        ("few_shot_fourth.json.gz", ("docs/results.md",)),
        ("few_shot_fifth.json.gz", ("docs/results.md",)),
        ("few_shot_fifth_unseen.json.gz", ("docs/results.md",)),
        ("few_shot_third_unseen.json.gz", ("docs/results.md",)),
        ("few_shot_trained.json.gz", ("docs/results.md",)),
        ("few_shot_tuned.json.gz", ("docs/results.md",)),
        ("few_shot_tuned_third.json.gz", ("docs/results.md",)),
        ("few_shot_watch.json.gz", ("docs/results.md",)),
    ],
)
def test_documented_figures_are_those_of_the_committed_answers(
    results_file: str, pages: tuple[str, ...]
) -> None:
    """Intervals of the committed results follow from the answers they hold; docs show them."""
    root = Path(__file__).parents[2]
    stored = (root / "docs/figures" / results_file).read_bytes()
    results = json.loads(gzip.decompress(stored) if results_file.endswith(".gz") else stored)
    again = assemble(
        results["runs"],
        results["records"],
        classes=results["classes"],
        protocol=results["protocol"],
    )
    text = "".join((root / page).read_text(encoding="utf-8") for page in pages)
    for k, row in results["few_shot"].items():
        for arm, interval in row.items():
            assert interval == pytest.approx(again["few_shot"][k][arm])
            assert format_interval(interval) in text
        for arm, gains in results["paired"][k].items():
            for baseline, gain in gains.items():
                assert gain["mean"] == pytest.approx(again["paired"][k][arm][baseline]["mean"])
                assert format_interval(gain, "+") in text


def test_the_chart_of_the_readme_is_drawn_from_the_committed_results() -> None:
    """If it is not: python -m benchmarks.draw_results, as its first lines show."""
    figures = Path(__file__).parents[2] / "docs/figures"
    drawn = draw_results(figures / "few_shot_fifth.json.gz")
    assert drawn == (figures / "few_shot.svg").read_bytes()


def test_a_study_gives_each_variant_its_settings_and_seeds(tmp_path: Path) -> None:
    study = read_study(Path("configs/studies/terms.yaml"))
    trees = {}
    for name in study.variants:
        write_variant(study, name, tmp_path / f"{name}.yaml")
        trees[name] = load_config(tmp_path / f"{name}.yaml")
    demo = load_config("configs/demo.yaml")
    assert trees["default"].objective == demo.objective
    assert (study.seeds_of("default"), study.seeds_of("near_alone")) == ((0, 1), (0,))
    terms = dict(demo.objective.weights)
    assert trees["with_imu_signal"].objective.weights.imu_signal > 0
    for name in [name for name, weight in terms.items() if weight]:
        weights = dict(trees[f"without_{name}"].objective.weights)
        assert weights == {**terms, name: 0}
    assert {tree.train for tree in trees.values()} == {demo.train}


def test_a_mistake_in_a_study_is_told_with_its_file(tmp_path: Path, capsys) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("config: demo.yaml\nvariants: {a: {setings: {}}}\n", encoding="utf-8")
    arguments = ["--study", str(path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "variants.a.setings" in (error := capsys.readouterr().err)
    assert str(path) in error
    path.write_text("config: nowhere.yaml\n", encoding="utf-8")
    assert main(arguments) == 1
    assert "nowhere.yaml" in capsys.readouterr().err
    assert main([*arguments, "--variants", "other"]) == 1
    assert "'other' is no variant" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
