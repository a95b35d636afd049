from pathlib import Path

import pytest
import yaml

from primus_scale.config import Config, FewShotConfig
from primus_scale.config_file import apply_overrides, dump_config, load_config, parse_config
from primus_scale.study.study_file import read_study

CONFIGS = Path(__file__).parents[2] / "configs"
ARMS = ("simclr", "imu2clip", "slip", "nnclr", "primus")
HEADER_WORDS = ("# Claim", "# Hardware", "# Command", "# Expect")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("name: a\noutput: runs/a\ndata: {train: [x]}\n")
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configuration_is_valid_and_opens_with_its_header(path: Path) -> None:
    if path.parent.name == "studies":
        assert load_config(read_study(path).config)
    else:
        assert isinstance(load_config(path), Config)
    for word in HEADER_WORDS:
        assert word in path.read_text()


def test_arms_differ_in_weights_and_names_only() -> None:
    trees = {arm: load_config(CONFIGS / "arms" / f"{arm}.yaml").model_dump() for arm in ARMS}
    weights = [str(tree["objective"].pop("weights")) for tree in trees.values()]
    for tree in trees.values():
        del tree["name"], tree["output"]
    assert all(tree == trees["primus"] for tree in trees.values())
    assert len(set(weights)) == len(ARMS)


def test_overrides_replace_values_and_keep_the_rest(config_file: Path) -> None:
    config = load_config(config_file, ["optimizer.lr=3e-4", "train.steps=7", "few_shot.k=[1,all]"])
    assert (config.optimizer.lr, config.train.steps) == (3e-4, 7)
    assert config.few_shot.k == (1, "all")
    assert config.data.train == ("x",)


def test_augmentations_are_chosen_and_ordered_by_configuration(config_file: Path) -> None:
    config = load_config(config_file, ["augment=[{name: negation}, {name: scaling, sd: 0.3}]"])
    assert [op.name for op in config.augment] == ["negation", "scaling"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrate=1", "unknown key 'optimizer.lrate'; the nearest known key is 'optim"),
        ("trian.steps=1", "unknown key 'trian'; the nearest known key is 'train'"),
        ("train.steps=-3", "train.steps: Input should be greater than or equal to 1"),
        ("train.steps=yes", "train.steps: Input should be a valid integer, unable to parse"),
        ("train.steps=1:30", "parse string as an integer (got '1:30')"),
        ("optimizer.lr=on", "optimizer.lr: Input should be a valid number, unable to parse"),
        ("few_shot.k=true", "few_shot.k.0.constrained-int: Input should be a valid integer"),
        ("data.session_windows=true", "data.session_windows: Input should be a valid integer"),
        ("train.precision=fp8", "train.precision"),
        ("train.steps", "not of the form key.sub=value"),
        ("support.minimum_fill=9000", "exceeds support.capacity"),
        ("teachers.mode=live", "none of teachers.video, teachers.text and teachers.signal"),
        ("name.sub=1", "has no fields below it"),
        ("augment=[{name: scalling}]", "augment"),
        (
            "augment=[{name: negation}, {name: rotation, maxdeg: 3}]",
            "unknown key 'augment.1.rotation.maxdeg'; the nearest known key is "
            "'augment.1.rotation.max_deg'",
        ),
        ("data.train=[a", "override 'data.train=[a' has no valid YAML value (expected ',' or ']'"),
        ("name=a: b: c", "override 'name=a: b: c' has no valid YAML value"),
        ("name='a", 'override "name=\'a" has no valid YAML value'),
        ("output=s3://bucket/run", "output: must be a path"),
        ("optimizer.lr=.inf", "optimizer.lr: Input should be a finite number"),
        ("optimizer.lr=.nan", "optimizer.lr"),
        ("objective.temperature.initial=2", "initial (2) is not within [minimum, maximum] ([0.01,"),
        ("objective.temperature.minimum=3", "objective.temperature"),
    ],
)
def test_a_bad_override_is_refused_with_the_field(
    config_file: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"(?s).") as caught:
        load_config(config_file, [override])
    assert message in str(caught.value)


def test_temperatures_without_bounds_may_lie_anywhere(config_file: Path) -> None:
    for mode in ("reference", "fixed"):
        overrides = [f"objective.temperature.mode={mode}", "objective.temperature.initial=2"]
        assert load_config(config_file, overrides).objective.temperature.initial == 2


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        load_config(broken)


def test_a_dumped_configuration_reads_back_equal(config_file: Path) -> None:
    config = load_config(config_file, ["train.steps=7"])
    assert parse_config(Config, yaml.safe_load(dump_config(config)), "dump") == config


def test_one_value_stands_for_a_list_of_it(config_file: Path) -> None:
    assert apply_overrides(FewShotConfig(), ["k=5", "lrs=0.1"]).k == (5,)
    assert apply_overrides(FewShotConfig(), ["k=all"]).k == ("all",)
    assert load_config(config_file, ["data.train=folder"]).data.train == ("folder",)
    with pytest.raises(ValueError, match="k"):
        apply_overrides(FewShotConfig(), ["k=0.5"])


def test_overrides_of_a_part_are_checked_too() -> None:
    assert apply_overrides(FewShotConfig(), ["draws=2"]).draws == 2
    with pytest.raises(ValueError, match="nearest known key is 'draws'"):
        apply_overrides(FewShotConfig(), ["drawss=2"])


def test_near_windows_need_sessions_in_batches(config_file: Path) -> None:
    example = load_config(config_file, [])
    near = ("objective.weights.imu_near=1",)
    with pytest.raises(ValueError, match=r"imu_near is set but data\.session_windows is not"):
        apply_overrides(example, near)
    with pytest.raises(ValueError, match=r"\(256\) is no multiple of .* \(48\); use 240"):
        apply_overrides(example, (*near, "data.session_windows=48"))
    assert apply_overrides(example, (*near, "data.session_windows=64")).train.batch == 256
    with pytest.raises(ValueError, match=r"session_windows: .*multiple of 2"):
        apply_overrides(example, ("data.session_windows=3",))
    with pytest.raises(ValueError, match=r"must not descend"):
        apply_overrides(example, ("objective.near.max_s=0.5",))


def test_a_rule_over_several_fields_is_told_without_the_whole_file(config_file: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s).") as caught:
        load_config(config_file, ["support.minimum_fill=9000"])
    assert str(caught.value) == (
        f"{config_file}: support.minimum_fill (9000) exceeds support.capacity (8192); lower the "
        "first or raise the second"
    )


def test_a_number_with_a_zero_before_it_is_no_octal_one(config_file: Path) -> None:
    assert load_config(config_file, ["train.steps=010"]).train.steps == 10
    assert load_config(config_file, ["train.take_over=yes"]).train.take_over is True
