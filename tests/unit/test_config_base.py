"""A configuration that names a base: what is merged, what is replaced, and what is refused."""

from pathlib import Path

import pytest
import yaml

from primus_scale.cli import main
from primus_scale.config import Config
from primus_scale.config_file import dump_config, load_config

BASE = """
name: base
output: runs/base
data: {train: [x, y], reader_threads: 5}
augment: [{name: negation}, {name: scaling, sd: 0.3}]
objective:
  weights: {imu_imu: 0.25, imu_video: 0.5}
  temperature: {initial: 0.2}
launch: {labels: {zone: a, rack: "1"}}
train: {batch: 64, steps: 7}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "arms").mkdir()
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_mappings_are_merged_at_every_depth_and_all_else_is_replaced(folder: Path) -> None:
    config = load_config(
        write(
            folder / "run.yaml",
            "base: base.yaml\n"
            "name: run\n"
            "data: {train: [z]}\n"
            "augment: []\n"
            "objective: {weights: {imu_imu: 0, neighbour_text: 2}}\n"
            "launch: {labels: {rack: '2'}}\n"
            "train: {steps: 9}\n",
        )
    )
    assert (config.name, config.output) == ("run", "runs/base")
    assert (config.data.train, config.data.reader_threads) == (("z",), 5)
    assert config.augment == ()
    weights = config.objective.weights
    assert (weights.imu_imu, weights.imu_video, weights.neighbour_text) == (0, 0.5, 2)
    assert config.objective.temperature.initial == 0.2
    assert config.launch.labels == {"zone": "a", "rack": "2"}
    assert (config.train.batch, config.train.steps) == (64, 9)
    assert load_config(folder / "base.yaml").augment[0].name == "negation", "the base is as it was"


def test_a_base_is_found_beside_the_file_that_names_it_and_may_have_one(folder: Path) -> None:
    write(folder / "arms" / "one.yaml", "base: ../base.yaml\ntrain: {steps: 8, threads: 1}\n")
    path = write(folder / "arms" / "two.yaml", "base: one.yaml\nname: two\ntrain: {steps: 9}\n")
    train = load_config(path).train
    assert (train.batch, train.threads, train.steps) == (64, 1, 9)
    far = write(folder / "far.yaml", f"base: {folder / 'arms' / 'one.yaml'}\n")
    assert load_config(far).train.steps == 8


def test_overrides_come_last(folder: Path) -> None:
    path = write(folder / "run.yaml", "base: base.yaml\ntrain: {steps: 9}\n")
    train = load_config(path, ["train.steps=10", "train.batch=32"]).train
    assert (train.steps, train.batch) == (10, 32)


def test_what_a_run_writes_is_whole_and_has_no_base(folder: Path) -> None:
    config = load_config(write(folder / "run.yaml", "base: base.yaml\nname: run\n"))
    written = write(folder / "arms" / "config.yaml", dump_config(config))
    assert "base" not in yaml.safe_load(written.read_text())
    assert load_config(written) == config
    assert "base" not in Config.model_fields


@pytest.mark.parametrize("base", ["nowhere.yaml", "arms", "~/x.yaml", "x" * 300])
def test_a_missing_base_is_named_with_the_file_that_names_it(folder, base, capsys) -> None:
    path = write(folder / "run.yaml", f"base: {base}\n")
    assert main(["pretrain", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}: its base '{base[:40]}" in error
    assert f"relative to the folder {folder}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["", "[base.yaml]", "7", "{a: b}", '""'])
def test_a_base_that_is_no_path_is_refused(folder: Path, value: str) -> None:
    path = write(folder / "run.yaml", f"base: {value}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: base must be the path of a configuration"):
        load_config(path)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_bases_names_all_files(folder: Path, length: int) -> None:
    paths = [folder / f"file{number}.yaml" for number in range(length)]
    for path, base in zip(paths, [*paths[1:], paths[0]], strict=True):
        path.write_text(f"base: {base.name}\n")
    with pytest.raises(ValueError, match="remove one base") as refused:
        load_config(paths[0])
    assert " -> ".join(map(str, [*paths, paths[0]])) in str(refused.value)


def test_a_circle_by_another_spelling_of_the_path_is_one_too(folder: Path) -> None:
    (folder / "link.yaml").symlink_to("run.yaml")
    for base in ("link.yaml", "arms/../run.yaml"):
        path = write(folder / "run.yaml", f"base: {base}\n")
        with pytest.raises(ValueError, match="remove one base"):
            load_config(path)


def test_faults_name_the_file_and_its_base(folder: Path) -> None:
    path = write(folder / "run.yaml", "base: base.yaml\ntrain: {step: 1}\n")
    with pytest.raises(ValueError, match=r"nearest known key is 'train\.steps'") as refused:
        load_config(path)
    assert f"{path} with its base {folder / 'base.yaml'}: unknown key" in str(refused.value)
    write(folder / "base.yaml", "[1]\n")
    with pytest.raises(ValueError, match=r"base\.yaml holds no mapping"):
        load_config(path)
    write(folder / "base.yaml", "a: [1\n")
    with pytest.raises(ValueError, match=r"base\.yaml is not valid YAML"):
        load_config(path)


def test_a_misspelt_base_is_told_and_an_override_names_none(folder: Path) -> None:
    path = write(folder / "run.yaml", "bse: base.yaml\n")
    with pytest.raises(ValueError, match="unknown key 'bse'; the nearest known key is 'base'"):
        load_config(path)
    with pytest.raises(ValueError, match=r"'base=x\.yaml': a base is named in a file only"):
        load_config(folder / "base.yaml", ["base=x.yaml"])


def test_credentials_in_a_base_are_not_repeated(folder: Path) -> None:
    path = write(folder / "run.yaml", "base: https://me:secret@host/x.yaml\n")
    with pytest.raises(FileNotFoundError) as refused:
        load_config(path)
    assert "secret" not in str(refused.value)
