"""A run goes on with another number of ranks: same global batches, same losses, same optimiser."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from primus_scale.engine.zero_state import StateFiles
from tests.integration.tiny import (
    PAPER,
    losses,
    start_ranks,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)

PROGRAM = Path(__file__).with_name("run_and_list_uids.py")
HALF, WHOLE = 4, 8
DECAY = 0.3
SMALL = "encoder.name=conv_stats"
# Names of folders, which must not be taken for patterns. Run: overrides, ranks before and after.
RUNS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "zero0": (("train.zero_stage=0",), 2, 3),
    "zero1": (("train.zero_stage=1",), 2, 1),
    # A small encoder, since many processors emulate bfloat16.
    "zero2 [bf16]": (("train.zero_stage=2", "train.precision=bf16", SMALL), 1, 2),
    "zero3 (+1)": (("train.zero_stage=3",), 2, 3),
}
STRAIGHT = {"straight": (), "straight bf16": RUNS["zero2 [bf16]"][0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of all runs; those that move are half done by some ranks, and then by others."""
    folder = tmp_path_factory.mktemp("elastic")
    shards = write_shards(folder / "shards", windows=44)  # epochs end within batches

    def run_files(runs: dict[str, tuple[str, ...]], steps: int) -> list[str]:
        files = []
        for name, overrides in runs.items():
            config = tiny_config(
                folder / name,
                shards,
                PAPER,
                "train.batch=12",
                f"train.steps={steps}",
                "train.pictures_every=100",
                "optimizer.schedule=constant",  # cosine depends on the number of steps
                f"optimizer.weight_decay={DECAY}",
                *overrides,
            )
            files.append(str(write_config(config, folder / f"{name}-{steps}.yaml")))
        return files

    def train(world: int, *files: str) -> None:
        assert wait_for(start_ranks(world, PROGRAM, *files)) == [0] * world

    before = {w: {n: o for n, (o, b, _) in RUNS.items() if b == w} for w in (1, 2, 3)}
    after = {w: {n: o for n, (o, _, a) in RUNS.items() if a == w} for w in (1, 2, 3)}
    train(2, *run_files(STRAIGHT, WHOLE), *run_files(before[2], HALF))
    train(1, *run_files(before[1], HALF), *run_files(after[1], WHOLE))
    train(2, *run_files(after[2], WHOLE))
    train(3, *run_files(after[3], WHOLE))
    return folder


def straight(folder: Path, name: str) -> Path:
    return folder / ("straight bf16" if "bf16" in name else "straight")


def global_batches(output: Path) -> dict[int, list[int]]:
    """The uids of each step's global batch, rank by rank."""
    batches = defaultdict(list)
    for path in sorted(output.glob("uids-*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            batches[record["step"]] += record["uids"]
    return dict(batches)


@pytest.mark.parametrize("name", RUNS)
def test_global_batches_are_those_of_the_straight_run(folder: Path, name: str) -> None:
    expected = global_batches(straight(folder, name))
    assert list(expected) == list(range(1, WHOLE + 1))
    assert len({len(uids) for uids in expected.values()}) == 1
    assert global_batches(folder / name) == expected


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_straight_run(folder: Path, name: str) -> None:
    expected = losses(straight(folder, name))
    assert len(expected) == WHOLE
    # bf16 has three digits, and other batches are summed in another order
    assert losses(folder / name) == pytest.approx(expected, rel=2e-2 if "bf16" in name else 1e-3)
    assert losses(folder / name)[-1] != losses(folder / name)[HALF - 1]


def final_states(output: Path, stage: int) -> list[tuple[Any, Any]]:
    """Parameter groups and states of the optimiser, of each rank of the last checkpoint."""
    found = []
    for path in (output / f"checkpoints/step-{WHOLE:08d}/state").glob("*optim_states.pt"):
        tree = StateFiles().load(str(path))["optimizer_state_dict"]
        inner = tree["optimizer_state_dict" if stage == 3 else "base_optimizer_state"]
        found.append((inner["param_groups"], list(dict(inner["state"]).values())))
    return found


@pytest.mark.parametrize("name", [name for name in RUNS if "zero0" not in name])
def test_optimiser_goes_on_as_it_was(folder: Path, name: str) -> None:
    """DeepSpeed's stage 3 brings the settings of the first group and one count of steps for all."""
    stage, world = int(name[4]), RUNS[name][2]
    states = final_states(folder / name, stage)
    assert len(states) == world
    for groups, state in states:
        assert [group["weight_decay"] for group in groups] == [DECAY, 0.0]
        assert [int(entry["step"]) for entry in state] == [WHOLE] * len(groups)


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_left_of_the_conversion(folder: Path, name: str) -> None:
    assert [path.name for path in sorted((folder / name / "checkpoints").iterdir())] == [
        f"step-{step:08d}" for step in (HALF, WHOLE)
    ]
